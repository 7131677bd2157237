//! Instantiated graphs, and when each of their steps runs after a launch.

use crate::model::objects::handle::{GraphExecKind, NodeHandle};
use crate::model::objects::op::Op;
use crate::model::objects::table::Item;
use crate::model::objects::user_object::Kept;

/// A graph as it was when it was instantiated, graphs within it laid open.
pub struct GraphExec {
    pub steps: Vec<Step>,
    pub flags: u64,
    /// What its last launch went by; none before the first and once a step has changed.
    pub plan: Option<Plan>,
    /// End of its last launch in seat time: it never runs beside itself.
    pub tail: u64,
    /// Objects of callers that it keeps alive.
    pub kept: Vec<Kept>,
}

impl Item for GraphExec {
    type Kind = GraphExecKind;
}

impl GraphExec {
    /// Where the memory lies that it allocates.
    pub fn memory(&self) -> Vec<u64> {
        let allocated = |step: &Step| if let Op::Alloc(address, _) = step.op { Some(address) } else { None };
        self.steps.iter().filter_map(allocated).collect()
    }

    /// When what happens after a launch on a device with this gap between kernels.
    pub fn planned(&mut self, gap: u64) -> &Plan {
        let plan = self.plan.take().filter(|plan| plan.gap == gap);
        self.plan.insert(plan.unwrap_or_else(|| Plan::of(&self.steps, gap)))
    }
}

#[derive(Clone)]
pub struct Step {
    pub node: NodeHandle,
    pub op: Op,
    /// Steps before this one that must be over.
    pub after: Vec<usize>,
    pub enabled: bool,
}

/// When what happens after a launch.
#[derive(Clone, Default)]
pub struct Plan {
    /// Begin and end of every step.
    pub spans: Vec<(u64, u64)>,
    /// When kernels keep the device busy, ascending and apart.
    pub busy: Vec<(u64, u64)>,
    pub kernels: u64,
    pub length: u64,
    gap: u64,
}

impl Plan {
    /// Branches run side by side, so a graph takes as long as its longest chain. A kernel that has one before it begins
    /// `gap` later.
    pub fn of(steps: &[Step], gap: u64) -> Plan {
        let mut plan = Plan { gap, ..Plan::default() };
        let mut busy = Vec::new();
        // Whether a kernel is over when a step is.
        let mut has_kernel: Vec<bool> = Vec::new();
        for step in steps {
            let start = step.after.iter().filter_map(|step| plan.spans.get(*step)).map(|span| span.1);
            let mut start = start.max().unwrap_or(0);
            let runs = matches!(step.op, Op::Kernel(_)) && step.enabled;
            let follows = step.after.iter().any(|step| has_kernel.get(*step) == Some(&true));
            has_kernel.push(runs || follows);
            if runs && follows {
                start += gap;
            }
            let end = start + if step.enabled { step.op.duration() } else { 0 };
            if runs {
                plan.kernels += 1;
                busy.push((start, end));
            }
            plan.spans.push((start, end));
            plan.length = plan.length.max(end);
        }
        busy.sort_unstable();
        for (start, end) in busy {
            match plan.busy.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => plan.busy.push((start, end)),
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::objects::handle::Handle;
    use crate::model::objects::op::{Launch, Timing};

    fn step(duration: u64, after: &[usize]) -> Step {
        let launch = Launch {
            kernel: Handle::NULL,
            grid: [1; 3],
            block: [1; 3],
            shared: 0,
            params: 0,
            extra: 0,
            timing: Timing { duration, log: 0 },
        };
        Step { node: Handle::NULL, op: Op::Kernel(launch), after: after.to_vec(), enabled: true }
    }

    #[test]
    fn a_graph_takes_as_long_as_its_longest_chain() {
        let steps = [step(10, &[]), step(20, &[0]), step(5, &[0]), step(1, &[1, 2])];
        let plan = Plan::of(&steps, 0);
        assert_eq!((plan.length, plan.kernels, plan.busy), (31, 4, vec![(0, 31)]));
        let plan = Plan::of(&steps, 2);
        assert_eq!((plan.length, plan.kernels, plan.busy), (35, 4, vec![(0, 10), (12, 32), (34, 35)]));
    }
}
