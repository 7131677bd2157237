/* Events: moments in a stream, and the time between them. */
#include "promises.h"

static CUevent event_of(unsigned flags)
{
    CUevent event;
    ok(cuEventCreate(&event, flags));
    return event;
}

static void events_measure_what_lies_between_them(void)
{
    CUfunction kernel = kernel_of(50);
    CUevent start = event_of(0), end = event_of(0);
    CUstream stream;
    float ms;
    ok(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    /* While the device is busy nothing of ours lies between the events. */
    ok(launch(kernel_of(200), stream));
    ok(cuEventRecord(start, stream));
    ok(launch(kernel, stream));
    ok(cuEventRecord(end, stream));
    ok(cuEventSynchronize(end));
    ok(cuEventElapsedTime(&ms, start, end));
    holds(ms >= 49.9 && ms < 60);
    ok(cuEventElapsedTime(&ms, end, start));
    holds(ms <= -49.9);
}

static void an_event_that_was_never_recorded_has_come_and_has_no_time(void)
{
    CUevent event = event_of(0), recorded = event_of(0);
    float ms;
    ok(cuEventQuery(event));
    ok(cuEventSynchronize(event));
    ok(cuStreamWaitEvent(NULL, event, 0));
    ok(cuEventRecord(recorded, NULL));
    ok(cuEventSynchronize(recorded));
    same(cuEventElapsedTime(&ms, event, recorded), CUDA_ERROR_INVALID_HANDLE);
}

static void an_event_has_no_time_before_it_has_come(void)
{
    CUevent start = event_of(0), end = event_of(0);
    float ms;
    ok(cuEventRecord(start, NULL));
    ok(launch(kernel_of(200), NULL));
    ok(cuEventRecord(end, NULL));
    same(cuEventQuery(end), CUDA_ERROR_NOT_READY);
    same(cuEventElapsedTime(&ms, start, end), CUDA_ERROR_NOT_READY);
    ok(cuEventSynchronize(end));
    ok(cuEventQuery(end));
    ok(cuEventElapsedTime(&ms, start, end));
}

static void an_event_without_timing_tells_no_time(void)
{
    CUevent start = event_of(CU_EVENT_DISABLE_TIMING), end = event_of(0);
    float ms;
    ok(cuEventRecord(start, NULL));
    ok(cuEventRecord(end, NULL));
    ok(cuCtxSynchronize());
    same(cuEventElapsedTime(&ms, start, end), CUDA_ERROR_INVALID_HANDLE);
}

static void an_event_recorded_again_stands_for_the_later_moment(void)
{
    CUevent event = event_of(0);
    CUfunction kernel = kernel_of(200);
    ok(cuEventRecord(event, NULL));
    ok(cuEventSynchronize(event));
    ok(launch(kernel, NULL));
    ok(cuEventRecord(event, NULL));
    same(cuEventQuery(event), CUDA_ERROR_NOT_READY);
    ok(cuEventSynchronize(event));
}

static void a_wait_is_for_the_moment_when_it_was_asked_for(void)
{
    CUevent event = event_of(CU_EVENT_DISABLE_TIMING);
    CUfunction kernel = kernel_of(200);
    CUstream slow, quick;
    ok(cuStreamCreate(&slow, CU_STREAM_NON_BLOCKING));
    ok(cuStreamCreate(&quick, CU_STREAM_NON_BLOCKING));
    ok(cuEventRecord(event, slow));
    ok(cuStreamWaitEvent(quick, event, 0));
    ok(launch(kernel, slow));
    ok(cuEventRecord(event, slow));
    ok(cuStreamSynchronize(quick));
    same(cuStreamQuery(slow), CUDA_ERROR_NOT_READY);
    ok(cuCtxSynchronize());
}

static void an_event_may_go_while_somebody_waits_for_it(void)
{
    CUevent event = event_of(CU_EVENT_DISABLE_TIMING);
    CUstream slow, other;
    ok(cuStreamCreate(&slow, CU_STREAM_NON_BLOCKING));
    ok(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    ok(launch(kernel_of(200), slow));
    ok(cuEventRecord(event, slow));
    ok(cuStreamWaitEvent(other, event, 0));
    ok(cuEventDestroy(event));
    same(cuStreamQuery(other), CUDA_ERROR_NOT_READY);
    ok(cuStreamSynchronize(other));
    ok(cuStreamQuery(slow));
}

static void an_event_is_recorded_in_streams_of_its_own_context(void)
{
    CUevent event = event_of(0);
    CUcontext other;
    CUstream stream;
    ok(cuCtxCreate(&other, NULL, 0, device));
    ok(cuStreamCreate(&stream, 0));
    same(cuEventRecord(event, stream), CUDA_ERROR_INVALID_HANDLE);
    ok(cuCtxDestroy(other));
}

const struct promise events[] = {
    PROMISE(events_measure_what_lies_between_them),
    PROMISE(an_event_that_was_never_recorded_has_come_and_has_no_time),
    PROMISE(an_event_has_no_time_before_it_has_come),
    PROMISE(an_event_without_timing_tells_no_time),
    PROMISE(an_event_recorded_again_stands_for_the_later_moment),
    PROMISE(a_wait_is_for_the_moment_when_it_was_asked_for),
    PROMISE(an_event_may_go_while_somebody_waits_for_it),
    PROMISE(an_event_is_recorded_in_streams_of_its_own_context),
    { 0 },
};
