/* Each time the test says "look": what NVML's views say of the activity on device 0, a figure or the error; and BAR1. */
#include <nvml.h>
#include "common.h"

static nvmlDevice_t card;

/* Kinds of samples have the newest one's value. */
static void say_samples(const char *key, nvmlSamplingType_t kind)
{
    nvmlSample_t samples[200];
    nvmlValueType_t type;
    unsigned count = 200;
    nvmlReturn_t rc = nvmlDeviceGetSamples(card, kind, 0, &type, &count, samples);
    say(key, rc == NVML_SUCCESS ? (int)samples[count - 1].sampleValue.uiVal : -(int)rc);
    for (unsigned i = 0; rc == NVML_SUCCESS && i < count; i++)
        if (samples[i].sampleValue.uiVal > samples[count - 1].sampleValue.uiVal)
            say("higher", samples[i].sampleValue.uiVal);
}

static void look(void)
{
    nvmlUtilization_t rates = { 0, 0 };
    nvmlBAR1Memory_t window;
    nvmlReturn_t rc = nvmlDeviceGetUtilizationRates(card, &rates);
    unsigned percent, period;

    say("gpu", rc == NVML_SUCCESS ? (int)rates.gpu : -(int)rc);
    if (rc != NVML_SUCCESS)
        say("left", rates.gpu);
    say_samples("gpu_samples", NVML_GPU_UTILIZATION_SAMPLES);
    say("memory", rc == NVML_SUCCESS ? (int)rates.memory : -(int)rc);
    say_samples("memory_samples", NVML_MEMORY_UTILIZATION_SAMPLES);
    rc = nvmlDeviceGetEncoderUtilization(card, &percent, &period);
    say("encoder", rc == NVML_SUCCESS ? (int)percent : -(int)rc);
    rc = nvmlDeviceGetDecoderUtilization(card, &percent, &period);
    say("decoder", rc == NVML_SUCCESS ? (int)percent : -(int)rc);
    must(nvmlDeviceGetBAR1MemoryInfo(card, &window));
    say("bar1_total", (long long)window.bar1Total);
    say("bar1_used", (long long)window.bar1Used);
    say("bar1_free", (long long)window.bar1Free);
    say("looked", 1);
}

int main(void)
{
    char line[64];
    must(nvmlInit_v2());
    must(nvmlDeviceGetHandleByIndex_v2(0, &card));
    while (next_line(line, sizeof line))
        look();
    return 0;
}
