//! Work that is written down in a graph, and calls that a capture forbids.

use crate::model::objects::capture::Capture;
use crate::model::objects::event::Moment;
use crate::model::objects::handle::{
    CaptureHandle, ContextHandle, EventHandle, GraphHandle, Handle, NodeHandle, StreamHandle,
};
use crate::model::objects::op::Op;
use crate::model::objects::stream::Order;
use crate::model::objects::thread;
use crate::model::operations::{events, graphs, streams};
use crate::model::world::World;
use crate::tools::status::{
    CAPTURED_EVENT, ILLEGAL_STATE, INVALID_VALUE, Outcome, STREAM_CAPTURE_IMPLICIT,
    STREAM_CAPTURE_INVALIDATED, STREAM_CAPTURE_ISOLATION, STREAM_CAPTURE_MERGE, STREAM_CAPTURE_UNJOINED,
    STREAM_CAPTURE_UNMATCHED, STREAM_CAPTURE_UNSUPPORTED, STREAM_CAPTURE_WRONG_THREAD, Status,
};

/// `CUstreamCaptureMode`.
pub const GLOBAL: u32 = 0;
const THREAD_LOCAL: u32 = 1;
pub const RELAXED: u32 = 2;

/// The graph of a capture that came to nothing goes, unless it is the caller's own.
fn discard(world: &mut World, capture: &Capture) -> Outcome {
    if capture.given { Ok(()) } else { graphs::destroy_graph(world, capture.graph) }
}

/// Fails, and the capture with it.
fn invalidate(world: &mut World, capture: CaptureHandle, status: Status) -> Outcome {
    if let Ok(capture) = world.captures.get_mut(capture) {
        capture.invalid = true;
    }
    Err(status)
}

/// The capture that a stream takes part in, if it is still good.
pub fn capture_of(world: &World, stream: StreamHandle) -> Outcome<Option<CaptureHandle>> {
    let Some(handle) = world.streams.get(stream)?.capture else { return Ok(None) };
    if world.captures.get(handle)?.invalid { Err(STREAM_CAPTURE_INVALIDATED) } else { Ok(Some(handle)) }
}

/// Work in the legacy stream would wait for the blocking streams: that ends their captures.
pub fn forbid_implicit(world: &mut World, stream: StreamHandle) -> Outcome {
    if world.captures.is_empty() || world.streams.get(stream)?.order != Order::Legacy {
        return Ok(());
    }
    let context = world.streams.get(stream)?.context;
    let blocked: Vec<_> = world
        .streams
        .iter()
        .filter(|(_, other)| other.context == context && other.order == Order::Blocking)
        .filter_map(|(_, other)| other.capture)
        .collect();
    let mut outcome = Ok(());
    for capture in blocked {
        outcome = invalidate(world, capture, STREAM_CAPTURE_IMPLICIT);
    }
    outcome
}

/// Writes `op` down if the stream is capturing; tells whether it did.
#[inline]
pub fn intercept(world: &mut World, stream: StreamHandle, op: Op) -> Outcome<bool> {
    if world.captures.is_empty() {
        return Ok(false);
    }
    forbid_implicit(world, stream)?;
    let Some(capture) = capture_of(world, stream)? else { return Ok(false) };
    let graph = world.captures.get(capture)?.graph;
    let dependencies = world.streams.get(stream)?.leaves.clone();
    let node = graphs::add_node(world, graph, op, &dependencies)?;
    world.streams.get_mut(stream)?.leaves = vec![node];
    Ok(true)
}

/// Waiting for a stream, or asking it, while it captures ends the capture.
pub fn forbid_wait(world: &mut World, stream: StreamHandle) -> Outcome {
    if world.captures.is_empty() {
        return Ok(());
    }
    forbid_implicit(world, stream)?;
    match capture_of(world, stream)? {
        Some(capture) => invalidate(world, capture, STREAM_CAPTURE_UNSUPPORTED),
        None => Ok(()),
    }
}

/// Waiting for a context likewise ends every capture in it.
pub fn forbid_context_wait(world: &mut World, context: ContextHandle) -> Outcome {
    let open: Vec<_> = world.captures.select(|capture| capture.context == context);
    let mut outcome = Ok(());
    for capture in open {
        outcome = invalidate(world, capture, STREAM_CAPTURE_UNSUPPORTED);
    }
    outcome
}

/// A call that may wait for the device in secret (`cudaMalloc` among them): forbidden while a capture in
/// global mode is open anywhere or one in thread-local mode in this thread, unless this thread has said
/// that it knows better.
#[inline(always)]
pub fn forbid_unsafe_call(world: &mut World) -> Outcome {
    if world.captures.is_empty() { Ok(()) } else { forbid_in_captures(world) }
}

#[cold]
fn forbid_in_captures(world: &mut World) -> Outcome {
    let mode = thread::capture_mode();
    let me = thread::id();
    let hit = world.captures.select(|capture| {
        let own = capture.thread == me && capture.mode != RELAXED;
        let other = capture.thread != me && capture.mode == GLOBAL;
        match mode {
            GLOBAL => own || other,
            THREAD_LOCAL => own,
            _ => false,
        }
    });
    let mut outcome = Ok(());
    for capture in hit {
        outcome = invalidate(world, capture, STREAM_CAPTURE_UNSUPPORTED);
    }
    outcome
}

/// An event recorded in a capture has no time to ask for; asking ends the capture.
pub fn checked_event(world: &mut World, event: EventHandle) -> Outcome {
    match world.events.get(event)?.moment {
        Moment::Captured(capture, _) => invalidate(world, capture, CAPTURED_EVENT),
        _ => Ok(()),
    }
}

/// Records an event in a capturing stream; tells whether it did. An `external` record is a node of its own.
pub fn record_event(
    world: &mut World,
    stream: StreamHandle,
    event: EventHandle,
    external: bool,
) -> Outcome<bool> {
    if world.captures.is_empty() {
        return Ok(false);
    }
    forbid_implicit(world, stream)?;
    let Some(capture) = capture_of(world, stream)? else { return Ok(false) };
    if external {
        return intercept(world, stream, Op::Record(event));
    }
    let leaves = world.streams.get(stream)?.leaves.clone();
    world.events.get_mut(event)?.moment = Moment::Captured(capture, leaves);
    Ok(true)
}

/// Makes a stream wait for an event: joins it to the event's capture, or follows the event in time.
pub fn wait_event(world: &mut World, stream: StreamHandle, event: EventHandle) -> Outcome {
    forbid_implicit(world, stream)?;
    let own = capture_of(world, stream)?;
    if let Some(shared) = events::recorded_elsewhere(world, event) {
        return match own {
            Some(capture) => invalidate(world, capture, STREAM_CAPTURE_ISOLATION),
            None => streams::follow_elsewhere(world, stream, shared),
        };
    }
    match (&world.events.get(event)?.moment, own) {
        (Moment::Never, _) => Ok(()),
        (Moment::Recorded(mark, _), None) => {
            let mark = mark.clone();
            streams::follow(world, stream, &mark)
        }
        (Moment::Recorded(..), Some(capture)) => invalidate(world, capture, STREAM_CAPTURE_ISOLATION),
        (Moment::Captured(capture, nodes), own) => {
            let (capture, nodes) = (*capture, nodes.clone());
            if world.captures.get(capture).is_err() {
                return Err(CAPTURED_EVENT);
            }
            if own.is_some_and(|own| own != capture) {
                return invalidate(world, capture, STREAM_CAPTURE_MERGE);
            }
            if world.streams.get(stream)?.order == Order::Legacy {
                return invalidate(world, capture, STREAM_CAPTURE_IMPLICIT);
            }
            if own.is_none() {
                world.captures.get_mut(capture)?.streams.push(stream);
            }
            let stream = world.streams.get_mut(stream)?;
            stream.capture = Some(capture);
            for node in nodes {
                if !stream.leaves.contains(&node) {
                    stream.leaves.push(node);
                }
            }
            Ok(())
        }
    }
}

/// A stream that is destroyed takes its capture with it.
pub fn forget_stream(world: &mut World, stream: StreamHandle) {
    if let Ok(Some(capture)) = world.streams.get(stream).map(|stream| stream.capture) {
        let origin = world.captures.get(capture).is_ok_and(|capture| capture.origin == stream);
        if origin {
            let _ = close(world, capture);
        } else {
            let _ = invalidate(world, capture, STREAM_CAPTURE_UNJOINED);
        }
    }
}

fn close(world: &mut World, handle: CaptureHandle) -> Outcome<Capture> {
    let capture = world.captures.remove(handle)?;
    for stream in &capture.streams {
        if let Ok(stream) = world.streams.get_mut(*stream) {
            stream.capture = None;
            stream.leaves.clear();
        }
    }
    Ok(capture)
}

pub fn begin(
    world: &mut World,
    stream: StreamHandle,
    mode: u32,
    graph: Option<(GraphHandle, Vec<NodeHandle>)>,
) -> Outcome {
    if mode > RELAXED {
        return Err(INVALID_VALUE);
    }
    let target = world.streams.get(stream)?;
    if target.order == Order::Legacy {
        return Err(STREAM_CAPTURE_UNSUPPORTED);
    }
    if target.capture.is_some() {
        return Err(ILLEGAL_STATE);
    }
    let context = target.context;
    let (graph, leaves, given) = match graph {
        Some((graph, leaves)) => (graph, leaves, true),
        None => (graphs::new_graph(world), Vec::new(), false),
    };
    let id = world.new_id();
    let first = world.graphs.get(graph)?.nodes.len();
    let capture = Capture {
        id,
        mode,
        thread: thread::id(),
        context,
        graph,
        first,
        given,
        origin: stream,
        streams: vec![stream],
        invalid: false,
    };
    let handle = world.captures.add(capture);
    let target = world.streams.get_mut(stream)?;
    target.capture = Some(handle);
    target.leaves = leaves;
    Ok(())
}

pub fn end(world: &mut World, stream: StreamHandle) -> Outcome<GraphHandle> {
    let handle = world.streams.get(stream)?.capture.ok_or(ILLEGAL_STATE)?;
    let capture = world.captures.get(handle)?;
    if capture.mode != RELAXED && capture.thread != thread::id() {
        // The wrong thread ends the capture all the same, and nobody gets the graph.
        let capture = close(world, handle)?;
        discard(world, &capture)?;
        return Err(STREAM_CAPTURE_WRONG_THREAD);
    }
    if capture.origin != stream {
        return invalidate(world, handle, STREAM_CAPTURE_UNMATCHED).map(|()| Handle::NULL);
    }
    let leaves = world.streams.get(stream)?.leaves.clone();
    let capture = close(world, handle)?;
    let graph = world.graphs.get(capture.graph)?;
    let new = &graph.nodes[capture.first.min(graph.nodes.len())..];
    let has_dependent = |node: &NodeHandle| {
        new.iter().any(|other| world.nodes.get(*other).is_ok_and(|other| other.dependencies.contains(node)))
    };
    let joined = new.iter().all(|node| leaves.contains(node) || has_dependent(node));
    let status = match (capture.invalid, joined) {
        (true, _) => STREAM_CAPTURE_INVALIDATED,
        (false, false) => STREAM_CAPTURE_UNJOINED,
        (false, true) => return Ok(capture.graph),
    };
    discard(world, &capture)?;
    Err(status)
}
