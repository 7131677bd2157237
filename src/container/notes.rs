//! What the start of a process has to tell about the region's file: that its names were gone, or that another user or
//! container shares it. The same stands in the region as an event.

use core::sync::atomic::Ordering::AcqRel;
use gpuquota_quota::limits::DEFAULT_REGION;
use gpuquota_quota::text::Line;
use gpuquota_region::file::{Maker, Region};
use gpuquota_region::layout::{EVENT_NAME_RESTORED, EVENT_SHARED, EVENT_TWO_REGIONS, NO_DEVICE};
use gpuquota_region::names::Names;

/// What is to be told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The file had lost its names, or some of them.
    Names(Names),
    /// Another user or container made the region, and this process shares it.
    Shared(Maker),
    /// The contents of the region were lost, and this process has made them anew; a living one, 0 where it cannot be told which,
    /// has not yet put back what it holds.
    Uncounted {
        /// That process.
        holder: u32,
    },
    /// The contents of the region were lost, and this process has put back what it holds.
    Contents {
        /// The file is out of reach, so nobody else sees it.
        alone: bool,
    },
}

/// Writes an event about the names of a region.
pub fn record_names(region: &Region, names: Names) {
    match names {
        Names::Intact => {}
        Names::Restored => region.event(EVENT_NAME_RESTORED, NO_DEVICE, 0, 0, 0),
        Names::Nameless { holder } => region.event(EVENT_NAME_RESTORED, NO_DEVICE, 1, holder.into(), 0),
        Names::Split { holder } => region.event(EVENT_TWO_REGIONS, NO_DEVICE, 0, holder.into(), 0),
    }
}

impl Note {
    /// What is to be told of a region that was opened at `path`. Who shares is told once in a region's life.
    pub fn of(region: &Region, names: Names, path: &[u8]) -> Option<Self> {
        record_names(region, names);
        if names != Names::Intact {
            return Some(Self::Names(names));
        }
        let (maker, here) = (Maker::of(region)?, Maker::here());
        let shares = maker.user != here.user || maker.mounts != here.mounts;
        // Elsewhere whoever names the same path means to share.
        if path != DEFAULT_REGION.as_bytes()
            || !shares
            || region.ours().header.shared_told.swap(1, AcqRel) != 0
        {
            return None;
        }
        region.event(EVENT_SHARED, NO_DEVICE, maker.user.into(), maker.mounts.into(), 0);
        Some(Self::Shared(maker))
    }

    /// Writes it for people.
    pub fn write(&self, line: &mut Line<900>, path: &[u8]) {
        line.push_str("gpuquota: the region ").push_escaped(path, 200);
        match *self {
            Self::Names(Names::Intact | Names::Restored) => {
                line.push_str(" was removed or replaced while processes hold it; its path names it again.");
            }
            Self::Names(Names::Nameless { holder: 0 }) => {
                line.push_str(
                    " was removed. Its processes keep its cap, and newcomers join them where /proc lets ",
                );
                line.push_str("them; no tool finds it by its path before all of its processes have ended.");
            }
            Self::Names(Names::Nameless { holder }) => {
                line.push_str(" was removed while ");
                push_holder(line, holder);
                line.push_str(
                    " holds it. This process has joined it all the same, and no tool finds it by its path ",
                );
                line.push_str("before all of its processes have ended.");
            }
            Self::Names(Names::Split { holder }) => {
                line.push_str(": ");
                push_holder(line, holder);
                line.push_str(
                    " holds another region of this path, with a cap of its own, because that one was ",
                );
                line.push_str("removed. End the processes of one of them.");
            }
            Self::Uncounted { holder } => {
                line.push_str(" was truncated or overwritten while ");
                push_holder(line, holder);
                line.push_str(" holds it, and what that one holds is not counted before its next call.");
            }
            Self::Contents { alone } => {
                line.push_str(" was truncated or overwritten while processes hold it. ");
                line.push_str(match alone {
                    true => "It cannot be restored, so this process is counted by itself.",
                    false => {
                        "What they hold counts again once each has made a call; what gpuquota limit had set is lost."
                    }
                });
            }
            Self::Shared(maker) => {
                line.push_str(" was made by user ").push_u64(maker.user.into());
                line.push_str(" or by another container, and its limits hold for both together. ");
                line.push_str("Set GPUQUOTA_REGION to a path of its own for each.");
            }
        }
    }
}

/// Writes which process it is, 0 for one that cannot be seen from here.
pub fn push_holder(line: &mut Line<900>, pid: u32) {
    match pid {
        0 => line.push_str("a process that is not visible from here"),
        pid => line.push_str("process ").push_u64(pid.into()),
    };
}
