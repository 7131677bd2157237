//! A device in virtual time: streams in order and beside each other, contexts one at a time, a slice each. It
//! knows to the nanosecond which kernel ran when, and shares nothing with the books under test.

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
}

#[derive(Default)]
struct Context {
    container: usize,
    streams: Vec<VecDeque<Queued>>,
    waiting: usize,
}

/// The device.
pub struct Gpu {
    pub now: u64,
    slice: u64,
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
            slice: 2_000_000,
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

    /// Queues a kernel; answers its number.
    pub fn launch(&mut self, context: usize, kernel: Kernel) -> usize {
        let Kernel { stream, length, spins_for, .. } = kernel;
        let id = self.records.len();
        self.records.push(Record::default());
        let context = &mut self.contexts[context];
        if context.streams.len() <= stream {
            context.streams.resize_with(stream + 1, VecDeque::new);
        }
        context.streams[stream].push_back(Queued { id, remaining: length.max(1), spins_for });
        context.waiting += 1;
        id
    }

    /// Removes all kernels of a process that have not ended.
    pub fn kill(&mut self, context: usize) {
        self.contexts[context].streams.clear();
        self.contexts[context].waiting = 0;
    }

    /// When the device should next be looked at; `None` while nothing ends by itself.
    pub fn next_change(&self) -> Option<u64> {
        let ready = self.contexts.iter().filter(|context| context.waiting > 0).count();
        let active = self.contexts.get(self.active).filter(|context| context.waiting > 0);
        let Some(active) = active.filter(|_| ready == 1 || self.now < self.slice_end) else {
            return (ready > 0).then_some(self.now + 1);
        };
        let ends = active.streams.iter().filter_map(VecDeque::front);
        let ends = ends.filter(|kernel| !self.spins(kernel)).map(|kernel| self.now + kernel.remaining).min();
        if ready > 1 { Some(ends.unwrap_or(u64::MAX).min(self.slice_end)) } else { ends }
    }

    fn spins(&self, kernel: &Queued) -> bool {
        kernel.spins_for > self.records.len()
    }

    /// Lets time pass.
    pub fn advance(&mut self, to: u64) {
        while self.now < to {
            let count = self.contexts.len();
            let ready = self.contexts.iter().filter(|context| context.waiting > 0).count();
            if ready == 0 {
                self.now = to;
                return;
            }
            let is_ready = |at: usize| self.contexts[at].waiting > 0;
            if !is_ready(self.active) || (ready > 1 && self.now >= self.slice_end) {
                let next = (1..=count).map(|step| (self.active + step) % count).find(|at| is_ready(*at));
                self.active = next.expect("one is ready");
                self.slice_end = self.now + self.slice;
            }
            let until = self.next_change().unwrap_or(to).min(to).max(self.now + 1);
            self.run(until);
        }
    }

    /// The active context has the device until then, and nothing ends before.
    fn run(&mut self, until: u64) {
        let step = until - self.now;
        let launched = self.records.len();
        let context = &mut self.contexts[self.active];
        for stream in &mut context.streams {
            let Some(kernel) = stream.front_mut() else { continue };
            let record = &mut self.records[kernel.id];
            record.start.get_or_insert(self.now);
            let spins = kernel.spins_for > launched;
            kernel.remaining = kernel.remaining.saturating_sub(step).max(u64::from(spins));
            if kernel.remaining == 0 {
                record.end = Some(until);
                self.ended.push(kernel.id);
                stream.pop_front();
                context.waiting -= 1;
            }
        }
        let busy = &mut self.busy[context.container];
        match busy.last_mut() {
            Some(last) if last.1 == self.now => last.1 = until,
            _ => busy.push((self.now, until)),
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
