//! Stream capture: work that is written down in a graph, and calls that a capture forbids.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::context::Context;
use crate::event::{Event, Moment};
use crate::ffi::{In, Lane, Out, Outcome, export};
use crate::graph::{Graph, Node};
use crate::op::Op;
use crate::status::{
    CAPTURED_EVENT, ILLEGAL_STATE, INVALID_VALUE, STREAM_CAPTURE_IMPLICIT, STREAM_CAPTURE_INVALIDATED,
    STREAM_CAPTURE_ISOLATION, STREAM_CAPTURE_MERGE, STREAM_CAPTURE_UNJOINED, STREAM_CAPTURE_UNMATCHED,
    STREAM_CAPTURE_UNSUPPORTED, STREAM_CAPTURE_WRONG_THREAD, Status,
};
use crate::stream::{Order, Stream};
use crate::table::{Handle, Kind};
use crate::thread;
use crate::world::{World, world};

/// `CUstreamCaptureMode`.
const GLOBAL: u32 = 0;
const THREAD_LOCAL: u32 = 1;
const RELAXED: u32 = 2;
/// `CUstreamCaptureStatus`.
const ACTIVE: u32 = 1;
const INVALIDATED: u32 = 2;

/// A capture that has begun and not ended.
pub struct Capture {
    id: u64,
    mode: u32,
    thread: u64,
    context: Handle<Context>,
    graph: Handle<Graph>,
    /// Nodes that the graph had when it began.
    first: usize,
    /// Whether the graph is the caller's own.
    given: bool,
    origin: Handle<Stream>,
    streams: Vec<Handle<Stream>>,
    invalid: bool,
}

impl Kind for Capture {
    const TAG: u64 = 4;
}

impl Capture {
    /// The graph of a capture that came to nothing goes, unless it is the caller's own.
    fn discard(&self, world: &mut World) -> Outcome {
        if self.given { Ok(()) } else { world.destroy_graph(self.graph) }
    }
}

/// Fails, and the capture with it.
fn invalidate(world: &mut World, capture: Handle<Capture>, status: Status) -> Outcome {
    if let Ok(capture) = world.captures.get_mut(capture) {
        capture.invalid = true;
    }
    Err(status)
}

/// The capture that a stream takes part in, if it is still good.
fn capture_of(world: &World, stream: Handle<Stream>) -> Outcome<Option<Handle<Capture>>> {
    let Some(handle) = world.streams.get(stream)?.capture else { return Ok(None) };
    if world.captures.get(handle)?.invalid { Err(STREAM_CAPTURE_INVALIDATED) } else { Ok(Some(handle)) }
}

/// Work in the legacy stream would wait for the blocking streams: that ends their captures.
fn forbid_implicit(world: &mut World, stream: Handle<Stream>) -> Outcome {
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
pub fn intercept(world: &mut World, stream: Handle<Stream>, op: Op) -> Outcome<bool> {
    if world.captures.is_empty() {
        return Ok(false);
    }
    forbid_implicit(world, stream)?;
    let Some(capture) = capture_of(world, stream)? else { return Ok(false) };
    let graph = world.captures.get(capture)?.graph;
    let dependencies = world.streams.get(stream)?.leaves.clone();
    let node = world.add_node(graph, op, &dependencies)?;
    world.streams.get_mut(stream)?.leaves = vec![node];
    Ok(true)
}

/// Waiting for a stream, or asking it, while it captures ends the capture.
pub fn forbid_wait(world: &mut World, stream: Handle<Stream>) -> Outcome {
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
pub fn forbid_context_wait(world: &mut World, context: Handle<Context>) -> Outcome {
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
pub fn checked_event(world: &mut World, event: Handle<Event>) -> Outcome {
    match world.events.get(event)?.moment {
        Moment::Captured(capture, _) => invalidate(world, capture, CAPTURED_EVENT),
        _ => Ok(()),
    }
}

/// Records an event in a capturing stream; tells whether it did. An `external` record is a node of its own.
pub fn record_event(
    world: &mut World,
    stream: Handle<Stream>,
    event: Handle<Event>,
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
pub fn wait_event(world: &mut World, stream: Handle<Stream>, event: Handle<Event>) -> Outcome {
    forbid_implicit(world, stream)?;
    let own = capture_of(world, stream)?;
    if let Some(shared) = world.recorded_elsewhere(event) {
        return match own {
            Some(capture) => invalidate(world, capture, STREAM_CAPTURE_ISOLATION),
            None => world.follow_elsewhere(stream, shared),
        };
    }
    match (&world.events.get(event)?.moment, own) {
        (Moment::Never, _) => Ok(()),
        (Moment::Recorded(mark, _), None) => {
            let mark = mark.clone();
            world.follow(stream, &mark)
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
pub fn forget_stream(world: &mut World, stream: Handle<Stream>) {
    if let Ok(Some(capture)) = world.streams.get(stream).map(|stream| stream.capture) {
        let origin = world.captures.get(capture).is_ok_and(|capture| capture.origin == stream);
        if origin {
            let _ = close(world, capture);
        } else {
            let _ = invalidate(world, capture, STREAM_CAPTURE_UNJOINED);
        }
    }
}

fn close(world: &mut World, handle: Handle<Capture>) -> Outcome<Capture> {
    let capture = world.captures.remove(handle)?;
    for stream in &capture.streams {
        if let Ok(stream) = world.streams.get_mut(*stream) {
            stream.capture = None;
            stream.leaves.clear();
        }
    }
    Ok(capture)
}

fn begin(
    world: &mut World,
    stream: Handle<Stream>,
    mode: u32,
    graph: Option<(Handle<Graph>, Vec<Handle<Node>>)>,
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
        None => (world.new_graph(), Vec::new(), false),
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

fn end(world: &mut World, stream: Handle<Stream>) -> Outcome<Handle<Graph>> {
    let handle = world.streams.get(stream)?.capture.ok_or(ILLEGAL_STATE)?;
    let capture = world.captures.get(handle)?;
    if capture.mode != RELAXED && capture.thread != thread::id() {
        // The wrong thread ends the capture all the same, and nobody gets the graph.
        let capture = close(world, handle)?;
        capture.discard(world)?;
        return Err(STREAM_CAPTURE_WRONG_THREAD);
    }
    if capture.origin != stream {
        return invalidate(world, handle, STREAM_CAPTURE_UNMATCHED).map(|()| Handle::NULL);
    }
    let leaves = world.streams.get(stream)?.leaves.clone();
    let capture = close(world, handle)?;
    let graph = world.graphs.get(capture.graph)?;
    let new = &graph.nodes[capture.first.min(graph.nodes.len())..];
    let has_dependent = |node: &Handle<Node>| {
        new.iter().any(|other| world.nodes.get(*other).is_ok_and(|other| other.dependencies.contains(node)))
    };
    let joined = new.iter().all(|node| leaves.contains(node) || has_dependent(node));
    let status = match (capture.invalid, joined) {
        (true, _) => STREAM_CAPTURE_INVALIDATED,
        (false, false) => STREAM_CAPTURE_UNJOINED,
        (false, true) => return Ok(capture.graph),
    };
    capture.discard(world)?;
    Err(status)
}

/// Where `cuStreamGetCaptureInfo` stores what.
struct Info {
    status: Out<u32>,
    id: Out<u64>,
    graph: Out<Handle<Graph>>,
    dependencies: Out<*const Handle<Node>>,
    edges: Out<*const u64>,
    count: Out<u64>,
}

fn info(lane: Lane, stream: Handle<Stream>, out: &Info) -> Outcome {
    out.status.required()?;
    let mut world = world()?;
    let stream = world.stream(lane, stream)?;
    forbid_implicit(&mut world, stream)?;
    let stream = world.streams.get(stream)?;
    let Some(capture) = stream.capture else { return out.status.put(0) };
    let capture = world.captures.get(capture)?;
    if capture.invalid {
        return out.status.put(INVALIDATED);
    }
    out.status.put(ACTIVE)?;
    out.id.put_if(capture.id);
    out.graph.put_if(capture.graph);
    // Valid until the stream's next node, as documented: the list is the stream's own.
    out.dependencies.put_if(stream.leaves.as_ptr());
    out.edges.put_if(std::ptr::null());
    out.count.put_if(stream.leaves.len() as u64);
    Ok(())
}

fn update(lane: Lane, stream: Handle<Stream>, nodes: In<Handle<Node>>, count: u64, flags: u32) -> Outcome {
    let mut world = world()?;
    let stream = world.stream(lane, stream)?;
    if capture_of(&world, stream)?.is_none() {
        return Err(ILLEGAL_STATE);
    }
    let nodes = nodes.list(count as usize)?;
    for node in &nodes {
        world.nodes.get(*node).map_err(|_| INVALID_VALUE)?;
    }
    let leaves = &mut world.streams.get_mut(stream)?.leaves;
    match flags {
        0 => leaves.extend(nodes),
        1 => *leaves = nodes,
        _ => return Err(INVALID_VALUE),
    }
    Ok(())
}

export! {
    lane fn |lane| cuStreamBeginCapture / cuStreamBeginCapture_ptsz (stream: Handle<Stream>) {
        let mut world = world()?;
        let stream = world.stream(lane, stream)?;
        begin(&mut world, stream, GLOBAL, None)
    }

    lane fn |lane| cuStreamBeginCapture_v2 / cuStreamBeginCapture_v2_ptsz (stream: Handle<Stream>, mode: u32) {
        let mut world = world()?;
        let stream = world.stream(lane, stream)?;
        begin(&mut world, stream, mode, None)
    }

    early lane fn |lane| cuStreamBeginCaptureToGraph / cuStreamBeginCaptureToGraph_ptsz (
        stream: Handle<Stream>, graph: Handle<Graph>, nodes: In<Handle<Node>>, edges: In<u64>, count: u64, mode: u32,
    ) {
        stream.given().map_err(|_| INVALID_VALUE)?;
        let _ = edges;
        let mut world = world()?;
        let stream = world.stream(lane, stream)?;
        world.graphs.get(graph)?;
        let nodes = nodes.list(count as usize)?;
        begin(&mut world, stream, mode, Some((graph, nodes)))
    }

    lane fn |lane| cuStreamEndCapture / cuStreamEndCapture_ptsz (stream: Handle<Stream>, graph: Out<Handle<Graph>>) {
        let mut world = world()?;
        let stream = world.stream(lane, stream)?;
        forbid_implicit(&mut world, stream)?;
        if capture_of(&world, stream).is_ok() {
            graph.required()?;
        }
        match end(&mut world, stream) {
            Ok(captured) => graph.put(captured),
            Err(status) => {
                graph.put_if(Handle::NULL);
                Err(status)
            }
        }
    }

    early lane fn |lane| cuStreamIsCapturing / cuStreamIsCapturing_ptsz (stream: Handle<Stream>, status: Out<u32>) {
        status.required()?;
        let mut world = world()?;
        let stream = world.stream(lane, stream)?;
        forbid_implicit(&mut world, stream)?;
        let capture = world.streams.get(stream)?.capture;
        status.put(match capture.map(|capture| world.captures.get(capture)) {
            Some(Ok(capture)) if capture.invalid => INVALIDATED,
            Some(Ok(_)) => ACTIVE,
            _ => 0,
        })
    }

    early lane fn |lane| cuStreamGetCaptureInfo / cuStreamGetCaptureInfo_ptsz (
        stream: Handle<Stream>, status: Out<u32>, id: Out<u64>,
    ) {
        let none = Out::none();
        info(lane, stream, &Info { status, id, graph: Out::none(), dependencies: Out::none(), edges: Out::none(), count: none })
    }

    early lane fn |lane| cuStreamGetCaptureInfo_v2 / cuStreamGetCaptureInfo_v2_ptsz (
        stream: Handle<Stream>, status: Out<u32>, id: Out<u64>, graph: Out<Handle<Graph>>,
        dependencies: Out<*const Handle<Node>>, count: Out<u64>,
    ) {
        info(lane, stream, &Info { status, id, graph, dependencies, edges: Out::none(), count })
    }

    early lane fn |lane| cuStreamGetCaptureInfo_v3 / cuStreamGetCaptureInfo_v3_ptsz (
        stream: Handle<Stream>, status: Out<u32>, id: Out<u64>, graph: Out<Handle<Graph>>,
        dependencies: Out<*const Handle<Node>>, edges: Out<*const u64>, count: Out<u64>,
    ) {
        info(lane, stream, &Info { status, id, graph, dependencies, edges, count })
    }

    lane fn |lane| cuStreamUpdateCaptureDependencies / cuStreamUpdateCaptureDependencies_ptsz (
        stream: Handle<Stream>, nodes: In<Handle<Node>>, count: u64, flags: u32,
    ) {
        update(lane, stream, nodes, count, flags)
    }

    lane fn |lane| cuStreamUpdateCaptureDependencies_v2 / cuStreamUpdateCaptureDependencies_v2_ptsz (
        stream: Handle<Stream>, nodes: In<Handle<Node>>, edges: In<u64>, count: u64, flags: u32,
    ) {
        let _ = edges;
        update(lane, stream, nodes, count, flags)
    }

    fn cuThreadExchangeStreamCaptureMode(mode: Out<u32>) {
        crate::world::driver()?;
        let wanted = mode.get()?;
        if wanted > RELAXED {
            return Err(INVALID_VALUE);
        }
        mode.put(thread::exchange_capture_mode(wanted))
    }
}
