//! Stream capture: work that is written down in a graph, and calls that a capture forbids.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::export::export;
use crate::model::objects::handle::{GraphHandle, Handle, NodeHandle, StreamHandle};
use crate::model::objects::thread;
use crate::model::operations::captures::{GLOBAL, RELAXED, begin, capture_of, end, forbid_implicit};
use crate::model::operations::streams;
use crate::model::world::{driver, world};
use crate::tools::ffi::{In, NullStream, Out};
use crate::tools::status::{ILLEGAL_STATE, INVALID_VALUE, Outcome};

/// `CUstreamCaptureStatus`.
const ACTIVE: u32 = 1;
const INVALIDATED: u32 = 2;

/// Where `cuStreamGetCaptureInfo` stores what.
struct Info {
    status: Out<u32>,
    id: Out<u64>,
    graph: Out<GraphHandle>,
    dependencies: Out<*const NodeHandle>,
    edges: Out<*const u64>,
    count: Out<u64>,
}

fn info(null: NullStream, stream: StreamHandle, out: &Info) -> Outcome {
    out.status.required()?;
    let mut world = world()?;
    let stream = streams::stream(&mut world, null, stream)?;
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

fn update(null: NullStream, stream: StreamHandle, nodes: In<NodeHandle>, count: u64, flags: u32) -> Outcome {
    let mut world = world()?;
    let stream = streams::stream(&mut world, null, stream)?;
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
    twin fn |null| cuStreamBeginCapture / cuStreamBeginCapture_ptsz (stream: StreamHandle) {
        let mut world = world()?;
        let stream = streams::stream(&mut world, null, stream)?;
        begin(&mut world, stream, GLOBAL, None)
    }

    twin fn |null| cuStreamBeginCapture_v2 / cuStreamBeginCapture_v2_ptsz (stream: StreamHandle, mode: u32) {
        let mut world = world()?;
        let stream = streams::stream(&mut world, null, stream)?;
        begin(&mut world, stream, mode, None)
    }

    early twin fn |null| cuStreamBeginCaptureToGraph / cuStreamBeginCaptureToGraph_ptsz (
        stream: StreamHandle, graph: GraphHandle, nodes: In<NodeHandle>, edges: In<u64>, count: u64, mode: u32,
    ) {
        stream.given().map_err(|_| INVALID_VALUE)?;
        let _ = edges;
        let mut world = world()?;
        let stream = streams::stream(&mut world, null, stream)?;
        world.graphs.get(graph)?;
        let nodes = nodes.list(count as usize)?;
        begin(&mut world, stream, mode, Some((graph, nodes)))
    }

    twin fn |null| cuStreamEndCapture / cuStreamEndCapture_ptsz (stream: StreamHandle, graph: Out<GraphHandle>) {
        let mut world = world()?;
        let stream = streams::stream(&mut world, null, stream)?;
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

    early twin fn |null| cuStreamIsCapturing / cuStreamIsCapturing_ptsz (stream: StreamHandle, status: Out<u32>) {
        status.required()?;
        let mut world = world()?;
        let stream = streams::stream(&mut world, null, stream)?;
        forbid_implicit(&mut world, stream)?;
        let capture = world.streams.get(stream)?.capture;
        status.put(match capture.map(|capture| world.captures.get(capture)) {
            Some(Ok(capture)) if capture.invalid => INVALIDATED,
            Some(Ok(_)) => ACTIVE,
            _ => 0,
        })
    }

    early twin fn |null| cuStreamGetCaptureInfo / cuStreamGetCaptureInfo_ptsz (
        stream: StreamHandle, status: Out<u32>, id: Out<u64>,
    ) {
        let none = Out::none();
        info(null, stream, &Info { status, id, graph: Out::none(), dependencies: Out::none(), edges: Out::none(), count: none })
    }

    early twin fn |null| cuStreamGetCaptureInfo_v2 / cuStreamGetCaptureInfo_v2_ptsz (
        stream: StreamHandle, status: Out<u32>, id: Out<u64>, graph: Out<GraphHandle>,
        dependencies: Out<*const NodeHandle>, count: Out<u64>,
    ) {
        info(null, stream, &Info { status, id, graph, dependencies, edges: Out::none(), count })
    }

    early twin fn |null| cuStreamGetCaptureInfo_v3 / cuStreamGetCaptureInfo_v3_ptsz (
        stream: StreamHandle, status: Out<u32>, id: Out<u64>, graph: Out<GraphHandle>,
        dependencies: Out<*const NodeHandle>, edges: Out<*const u64>, count: Out<u64>,
    ) {
        info(null, stream, &Info { status, id, graph, dependencies, edges, count })
    }

    twin fn |null| cuStreamUpdateCaptureDependencies / cuStreamUpdateCaptureDependencies_ptsz (
        stream: StreamHandle, nodes: In<NodeHandle>, count: u64, flags: u32,
    ) {
        update(null, stream, nodes, count, flags)
    }

    twin fn |null| cuStreamUpdateCaptureDependencies_v2 / cuStreamUpdateCaptureDependencies_v2_ptsz (
        stream: StreamHandle, nodes: In<NodeHandle>, edges: In<u64>, count: u64, flags: u32,
    ) {
        let _ = edges;
        update(null, stream, nodes, count, flags)
    }

    fn cuThreadExchangeStreamCaptureMode(mode: Out<u32>) {
        driver()?;
        let wanted = mode.get()?;
        if wanted > RELAXED {
            return Err(INVALID_VALUE);
        }
        mode.put(thread::exchange_capture_mode(wanted))
    }
}
