//! Where the use of one device is written down.

use super::busy::Busy;
use super::clock::{self, Clock, Correction, Credit, Rate};
use super::lease::AgentWords;
use super::types::Covered;
use super::words;
use crate::sync::{AtomicU64, Ordering};

/// The words of one device, for one process of the container.
#[derive(Clone, Copy)]
pub struct Books<'a> {
    /// The container's virtual time.
    pub clock: Clock<'a>,
    /// When the container is known to have occupied the device.
    pub busy: Busy<'a>,
    /// When all work of the container should be over.
    pub in_flight_until: &'a AtomicU64,
    /// GPU time charged.
    pub gpu_time_ns: &'a AtomicU64,
    /// Predicted time of this process's measured launches in flight: the reaper reads it after the process's death.
    pub pending_ns: &'a AtomicU64,
    /// The share, where there is one.
    pub rate: Option<Rate>,
    /// Whether other processes of the container may be at work.
    pub has_peers: bool,
    /// The words that the container and the node's agent exchange.
    pub agent: AgentWords<'a>,
}

impl Books<'_> {
    /// A process has died, and with it its work on the device. Gives back the time of its pending work that has not passed
    /// since its last launch; the rest stays charged as predicted. Only the first call after a death has an effect: it
    /// takes the pending time.
    pub fn reap_pending(&self, now_ns: u64, last_launch_ns: u64) {
        let pending = self.pending_ns.swap(0, Ordering::AcqRel);
        words::subtract(self.agent.in_flight_ns, pending);
        if self.agent.in_flight_ns.load(Ordering::Relaxed) == 0 {
            self.agent.uncertainty_ns.store(0, Ordering::Relaxed);
        }
        let ran = now_ns.saturating_sub(last_launch_ns);
        if ran < pending {
            self.correct(Correction {
                charged_at_ns: last_launch_ns,
                charged_ns: pending,
                actual_ns: ran,
                credit: Credit::default(),
            });
        }
    }

    /// Undoes the charge of a launch that the driver has just refused.
    pub(super) fn cancel(&self, now_ns: u64, charged_ns: u64, predicted_ns: u64) {
        self.correct(Correction {
            charged_at_ns: now_ns,
            charged_ns,
            actual_ns: 0,
            credit: Credit::default(),
        });
        words::shift(self.in_flight_until, predicted_ns, 0);
    }

    /// This process has submitted a measured launch.
    pub(super) fn submit_measured(&self, covered: Covered, uncertainty_ns: u64) {
        self.pending_ns.fetch_add(covered.ns, Ordering::Relaxed);
        self.agent.in_flight_ns.fetch_add(covered.ns, Ordering::Relaxed);
        self.agent.uncertainty_ns.fetch_add(uncertainty_ns, Ordering::Relaxed);
    }

    /// A measured launch of this process is over.
    pub(super) fn complete_measured(&self, covered: Covered, uncertainty_ns: u64) {
        words::subtract(self.pending_ns, covered.ns);
        words::subtract(self.agent.in_flight_ns, covered.ns);
        words::subtract(self.agent.uncertainty_ns, uncertainty_ns);
    }

    /// Corrects a charge, once it is known how long the work took.
    pub(super) fn correct(&self, correction: Correction) {
        let more = correction.actual_ns.wrapping_sub(correction.charged_ns);
        self.gpu_time_ns.fetch_add(more, Ordering::Relaxed);
        if let Some(rate) = self.rate {
            clock::correct(self.clock, correction, rate);
        }
    }
}
