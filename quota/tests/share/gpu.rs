//! A device in virtual time: streams in order and beside each other, contexts one at a time, a slice each. Its front end
//! may take time before each kernel, as `card` says. It knows to the nanosecond which kernel ran when, and shares nothing
//! with the books under test.

use std::collections::VecDeque;

use crate::program::Kernel;

/// When a kernel ran.
#[derive(Clone, Copy, Default)]
pub struct Record {
    pub start: Option<u64>,
    pub end: Option<u64>,
}

struct Queued {
    id: usize,
    remaining: u64,
    spins_for: usize,
    not_before: u64,
    /// What the front end takes between what is before it in its stream and it.
    gap: u64,
}

#[derive(Default)]
struct Stream {
    kernels: VecDeque<Queued>,
    /// When its last kernel ended.
    ended: u64,
}

impl Stream {
    /// When its first kernel begins, or when it might have begun.
    fn begins(&self) -> Option<u64> {
        self.kernels.front().map(|kernel| kernel.not_before.max(self.ended + kernel.gap))
    }
}

#[derive(Default)]
struct Context {
    container: usize,
    streams: Vec<Stream>,
}

impl Context {
    /// When the last stream could begin its first kernel whose first kernel runs.
    fn last_that_runs(&self, now: u64, width: usize) -> u64 {
        if self.streams.len() <= width {
            return u64::MAX;
        }
        let begins = self.streams.iter().filter_map(Stream::begins).filter(|at| *at <= now);
        let mut begins: Vec<u64> = begins.collect();
        begins.sort_unstable();
        begins.get(width - 1).copied().unwrap_or(u64::MAX)
    }

    fn is_ready(&self, now: u64) -> bool {
        self.streams.iter().filter_map(Stream::begins).any(|begins| begins <= now)
    }
}

/// The device.
pub struct Gpu {
    pub now: u64,
    /// So many kernels run beside each other; others wait, in the order in which they could begin.
    pub width: usize,
    slice: u64,
    /// How long nobody runs when another context comes.
    pub switch: u64,
    /// Until when nobody runs.
    switching: u64,
    contexts: Vec<Context>,
    active: usize,
    slice_end: u64,
    /// By kernel.
    pub records: Vec<Record>,
    /// By container, when its kernels had the device; ascending and apart.
    pub busy: Vec<Vec<(u64, u64)>>,
    /// Kernels that have ended since the host last asked.
    pub ended: Vec<usize>,
}

impl Gpu {
    pub fn new(now: u64) -> Self {
        Self {
            now,
            width: usize::MAX,
            slice: 2_000_000,
            switch: 0,
            switching: 0,
            contexts: Vec::new(),
            active: 0,
            slice_end: 0,
            records: Vec::new(),
            busy: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// A new process's context.
    pub fn context(&mut self, container: usize) -> usize {
        self.busy.resize(self.busy.len().max(container + 1), Vec::new());
        self.contexts.push(Context { container, ..Context::default() });
        self.contexts.len() - 1
    }

    /// Queues a kernel that begins at once if it can; answers its number.
    pub fn launch(&mut self, context: usize, kernel: Kernel) -> usize {
        self.launch_late(context, kernel, self.now, 0)
    }

    /// Queues a kernel that begins not before a time, and a gap behind what is before it.
    pub fn launch_late(&mut self, context: usize, kernel: Kernel, not_before: u64, gap: u64) -> usize {
        let Kernel { stream, length, spins_for, .. } = kernel;
        let id = self.records.len();
        self.records.push(Record::default());
        let streams = &mut self.contexts[context].streams;
        if streams.len() <= stream {
            streams.resize_with(stream + 1, Stream::default);
        }
        let remaining = length.max(1);
        streams[stream].kernels.push_back(Queued { id, remaining, spins_for, not_before, gap });
        id
    }

    /// Removes all kernels of a process that have not ended.
    pub fn kill(&mut self, context: usize) {
        self.contexts[context].streams.clear();
    }

    fn ready(&self) -> usize {
        self.contexts.iter().filter(|context| context.is_ready(self.now)).count()
    }

    /// When the next kernel may begin that may not yet.
    fn next_begin(&self) -> u64 {
        let streams = self.contexts.iter().flat_map(|context| &context.streams);
        let begins = streams.filter_map(Stream::begins).filter(|begins| *begins > self.now);
        begins.min().unwrap_or(u64::MAX)
    }

    /// When the device should next be looked at; `None` while nothing ends by itself.
    pub fn next_change(&self) -> Option<u64> {
        if self.now < self.switching {
            return Some(self.switching);
        }
        let (ready, next_begin) = (self.ready(), self.next_begin());
        let active = self.contexts.get(self.active).filter(|context| context.is_ready(self.now));
        let Some(active) = active.filter(|_| ready == 1 || self.now < self.slice_end) else {
            let at = if ready > 0 { self.now + 1 } else { next_begin };
            return (at != u64::MAX).then_some(at);
        };
        let last = active.last_that_runs(self.now, self.width).min(self.now);
        let streams = active.streams.iter().filter(|stream| stream.begins().is_some_and(|at| at <= last));
        let fronts = streams.filter_map(|stream| stream.kernels.front());
        let ends = fronts.filter(|kernel| !self.spins(kernel)).map(|kernel| self.now + kernel.remaining);
        let ends = ends.min().unwrap_or(u64::MAX).min(next_begin);
        let at = if ready > 1 { ends.min(self.slice_end) } else { ends };
        (at != u64::MAX).then_some(at)
    }

    fn spins(&self, kernel: &Queued) -> bool {
        kernel.spins_for > self.records.len()
    }

    /// Lets time pass.
    pub fn advance(&mut self, to: u64) {
        while self.now < to {
            let (count, ready) = (self.contexts.len(), self.ready());
            if ready == 0 {
                self.now = to.min(self.next_begin());
                continue;
            }
            let is_ready = |at: usize| self.contexts[at].is_ready(self.now);
            if !is_ready(self.active) || (ready > 1 && self.now >= self.slice_end) {
                let next = (1..=count).map(|step| (self.active + step) % count).find(|at| is_ready(*at));
                let next = next.expect("one is ready");
                if next != self.active {
                    self.switching = self.now + self.switch;
                }
                self.active = next;
                self.slice_end = self.now + self.switch + self.slice;
            }
            if self.now < self.switching {
                self.now = to.min(self.switching);
                continue;
            }
            let until = self.next_change().unwrap_or(to).min(to).max(self.now + 1);
            self.run(until);
        }
    }

    /// The active context has the device until then, and nothing ends or begins before.
    fn run(&mut self, until: u64) {
        let (now, step) = (self.now, until - self.now);
        let launched = self.records.len();
        let context = &mut self.contexts[self.active];
        let last = context.last_that_runs(now, self.width).min(now);
        for stream in &mut context.streams {
            if stream.begins().is_none_or(|begins| begins > last) {
                continue;
            }
            let Some(kernel) = stream.kernels.front_mut() else { continue };
            let record = &mut self.records[kernel.id];
            record.start.get_or_insert(now);
            let spins = kernel.spins_for > launched;
            kernel.remaining = kernel.remaining.saturating_sub(step).max(u64::from(spins));
            if kernel.remaining == 0 {
                record.end = Some(until);
                self.ended.push(kernel.id);
                stream.kernels.pop_front();
                stream.ended = until;
            }
        }
        let busy = &mut self.busy[context.container];
        match busy.last_mut() {
            Some(last) if last.1 == now => last.1 = until,
            _ => busy.push((now, until)),
        }
        self.now = until;
    }

    /// How long a container had the device within a window.
    pub fn used(&self, container: usize, from: u64, to: u64) -> u64 {
        let busy = &self.busy[container];
        let first = busy.partition_point(|(_, end)| *end <= from);
        let within = busy[first..].iter().take_while(|(start, _)| *start < to);
        within.map(|(start, end)| end.min(&to) - start.max(&from)).sum()
    }
}
