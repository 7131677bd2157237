"""PyTorch: the training of a network like ResNet-18, batches of 128 images of 224x224, bfloat16, channels last."""

import time

from kit_client import say, serve, torch_on_gpu

torch = torch_on_gpu()
nn = torch.nn

BATCH, SIDE = 128, 224


class Block(nn.Module):
    def __init__(self, inside, outside, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def network():
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inside = 64
    for outside, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(inside, outside, stride), Block(outside, outside, 1)]
        inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


torch.manual_seed(0)
model = network().to("cuda", memory_format=torch.channels_last)
images = torch.randn(BATCH, 3, SIDE, SIDE, device="cuda").to(memory_format=torch.channels_last)
labels = torch.randint(1000, (BATCH,), device="cuda")
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def step():
    """One step; the events at its start and at its end."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    end.record()
    return start, end


def train(over):
    steps, begun = [], time.perf_counter()
    while not over() or not steps:
        steps.append(step())
        # Two steps are launched ahead, as a training does that looks at its loss only now and then.
        if len(steps) > 2:
            steps[-3][1].synchronize()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    times = [start.elapsed_time(end) for start, end in steps]
    say("steps", len(steps))
    say("seconds", f"{seconds:.6f}")
    say("images_per_second", f"{len(steps) * BATCH / seconds:.3f}")
    # From a step's first kernel to its last: time that the kernels wait in between is within it.
    say("gpu_ms_per_step", f"{sum(times) / len(times):.6f}")


for _ in range(5):
    step()
torch.cuda.synchronize()
serve(train)
