//! What a card and its host take beside kernels, in virtual time: the latencies of calls and of the front end, threads that
//! are stopped, and code that is loaded at a first launch. Decision 12 has the cards that this is modelled on.

use crate::gpu::{Gpu, Record};
use crate::program::Kernel;
use crate::random::Random;
use crate::world::{MS, US};
use gpuquota_quota::share::{Queue, Submission};

/// Latencies, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    /// The host's part of a launch.
    pub launch: u64,
    /// `cuEventRecord`, and the calls that ask whether a stream or an event is over.
    pub record: u64,
    pub query: u64,
    /// From the end of a launch call to the begin of its kernel in an idle stream.
    pub dispatch: u64,
    /// Between kernels that are queued in a stream, and between an event and a kernel queued behind it.
    pub gap: u64,
    pub gap_after_event: u64,
    /// So much after what is before it in its stream is the time of an event.
    pub event: u64,
    /// Calls and the front end take up to this much longer.
    pub jitter: u64,
    /// The first launch of a kernel takes so much longer.
    pub first_launch: u64,
    /// In one of so many launches the thread is stopped at some point; 0 for none. And for how long.
    pub one_in: u64,
    pub stop: u64,
}

impl Card {
    /// An H200 of 2026-11-27.
    pub const H200: Self = Self {
        launch: 3_500,
        record: 1_040,
        query: 316,
        dispatch: 375,
        gap: 1_312,
        gap_after_event: 2_048,
        event: 1_311,
        jitter: 300,
        first_launch: 28 * US,
        one_in: 0,
        stop: 0,
    };
    /// An H100 of 2026-11-27.
    pub const H100: Self = Self {
        launch: 2_970,
        record: 900,
        query: 200,
        dispatch: 740,
        gap: 1_600,
        gap_after_event: 2_370,
        event: 1_311,
        ..Self::H200
    };
    /// A card on a host that stops a container's threads by its limit of processor time.
    pub const STOPPED: Self = Self { one_in: 300, stop: 5 * MS, first_launch: 20 * MS, ..Self::H200 };
    /// A card on which nothing takes time but kernels.
    pub const NONE: Self = Self {
        launch: 0,
        record: 0,
        query: 0,
        dispatch: 0,
        gap: 0,
        gap_after_event: 0,
        event: 0,
        jitter: 0,
        first_launch: 0,
        one_in: 0,
        stop: 0,
    };
    /// A card whose launches sleep.
    pub const SLEEPY: Self = Self { launch: 60 * US, ..Self::H200 };
}

/// One launch on its way to a card.
#[derive(Clone, Copy)]
pub struct Crossing {
    /// The kernel before it in its stream, and how far behind that what is before this launch is over.
    before: Option<(usize, u64)>,
    pub kernel: usize,
    /// When each call was over, as the host sees it.
    began: u64,
    recorded: u64,
    pub returned: u64,
    /// When the device saw the first event, and the second.
    first: u64,
    second: u64,
    event: u64,
    queued: bool,
}

/// What is at the end of a stream.
#[derive(Clone, Copy)]
pub struct Tail {
    pub kernel: usize,
    pub measured: bool,
}

impl Card {
    /// A thread launches a kernel now, between two events if it is `measured`.
    pub fn launch(
        &self,
        gpu: &mut Gpu,
        (context, kernel): (usize, Kernel),
        (tail, is_first): (Option<Tail>, bool),
        measured: bool,
        random: &mut Random,
    ) -> Crossing {
        let began = gpu.now;
        let mut more = || random.below(self.jitter + 1);
        let jitters = [more(), more(), more()];
        let stopped = self.one_in != 0 && random.below(self.one_in) == 0;
        // Before the first event reaches the device, behind that, before the launch does, and behind that.
        let mut stops = [0; 4];
        if stopped {
            stops[random.below(4) as usize] = random.around(self.stop);
        }
        let is_over = |tail: Tail| gpu.records[tail.kernel].end.is_some();
        let queued = measured && tail.is_some_and(|tail| !is_over(tail));
        let (mut at, mut first) = (began, 0);
        if measured {
            at += self.query;
        }
        let asked = at;
        if measured {
            first = at + stops[0] + self.record + jitters[0];
            at = first + stops[1];
        }
        let recorded = at;
        let handed_over =
            at + stops[2] + self.launch + jitters[1] + if is_first { self.first_launch } else { 0 };
        let returned = handed_over + stops[3];
        let behind = |tail: Tail| if tail.measured { self.event } else { 0 };
        let before = tail.map(|tail| (tail.kernel, behind(tail)));
        let gap = match (measured, before) {
            (_, None) => 0,
            (true, Some((_, behind))) => behind + self.event + self.gap_after_event,
            (false, Some((_, 0))) => self.gap,
            (false, Some((_, behind))) => behind + self.gap_after_event,
        };
        let not_before = handed_over + self.dispatch + jitters[2];
        let kernel = gpu.launch_late(context, kernel, not_before, gap);
        let second = returned + self.query + self.record;
        Crossing {
            before,
            kernel,
            began: asked,
            recorded,
            returned,
            first,
            second,
            event: self.event,
            queued,
        }
    }
}

impl Card {
    /// How far two events lie apart behind a kernel. One in ten is no more than half of that, or twice as much.
    pub fn probe(&self, random: &mut Random) -> u64 {
        match random.below(20) {
            0 => self.event / 2,
            1 => self.event * 2,
            _ => self.event + random.below(self.jitter / 4 + 1),
        }
    }
}

impl Crossing {
    /// When the first event was.
    pub fn first_event(&self, records: &[Record]) -> Option<u64> {
        let before = match self.before.filter(|_| self.queued) {
            Some((kernel, behind)) => records[kernel].end? + behind + self.event,
            None => 0,
        };
        Some(before.max(self.first))
    }

    /// When the second one was.
    pub fn second_event(&self, records: &[Record]) -> Option<u64> {
        Some((records[self.kernel].end? + self.event).max(self.second))
    }

    /// From the second event of the launch before it to its own, where that one was measured.
    pub fn since_end(&self, records: &[Record]) -> Option<u64> {
        let (kernel, behind) = self.before.filter(|(_, behind)| *behind != 0)?;
        self.second_event(records)?.checked_sub(records[kernel].end? + behind)
    }

    /// What the host knows when the launch call has returned, which is now.
    pub fn submission(&self, gpu: &Gpu) -> Submission {
        let queue = match self.first_event(&gpu.records) {
            _ if !self.queued => Queue::Idle,
            Some(at) if at <= gpu.now => Queue::Drained,
            _ => Queue::Busy,
        };
        let over = gpu.records[self.kernel].end.is_some();
        let Self { began, recorded, returned, .. } = *self;
        Submission { began_ns: began, recorded_ns: recorded, returned_ns: returned, queue, over }
    }
}
