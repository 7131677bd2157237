//! Graphs that can be launched: instantiating, launching, updating.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::abi::{InstantiateParams, UpdateResult};
use crate::api::export::export;
use crate::model::objects::graph::owns_memory;
use crate::model::objects::handle::{GraphExecHandle, GraphHandle, Handle, NodeHandle, StreamHandle};
use crate::model::objects::op::Op;
use crate::model::operations::execs::{self, Launched};
use crate::model::operations::{captures, graph_memory, graphs, latency, stamps, streams};
use crate::model::world::{self, world};
use crate::tools::ffi::{In, NullStream, Out};
use crate::tools::status::{GRAPH_EXEC_UPDATE_FAILURE, INVALID_VALUE, Outcome};

/// `CUgraphExecUpdateResult`.
const TOPOLOGY_CHANGED: u32 = 2;
const TYPE_CHANGED: u32 = 3;
const NOT_SUPPORTED_THERE: u32 = 6;

fn instantiate(out: Out<GraphExecHandle>, graph: GraphHandle, flags: u64) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let exec = execs::compile(&world, graph, flags)?;
    let memory = exec.memory();
    for (index, address) in memory.iter().enumerate() {
        if let Err(status) = graph_memory::share_graph_memory(&mut world, *address) {
            memory[..index].iter().for_each(|shared| graph_memory::disown_graph_memory(&mut world, *shared));
            return Err(status);
        }
    }
    out.put(world.execs.add(exec))
}

pub fn launch(null: NullStream, exec: GraphExecHandle, stream: StreamHandle) -> Outcome {
    latency::spend(|world| streams::device_meant(world, null, stream), |latency| latency.launch_ns);
    let mut world = world()?;
    let stream = streams::stream(&mut world, null, stream)?;
    world.execs.get(exec)?;
    if world.streams.get(stream)?.capture.is_some() {
        let graph = execs::graph_of(&mut world, exec)?;
        let captured = captures::intercept(&mut world, stream, Op::Child(graph));
        if captured.is_err() {
            graphs::destroy_graph(&mut world, graph)?;
        }
        return captured.map(|_| ());
    }
    captures::intercept(&mut world, stream, Op::Empty)?;
    let Launched { ops, calls } = execs::run(&mut world, exec, stream)?;
    drop(world);
    stamps::write_due();
    ops.iter().for_each(Op::perform);
    // A function of the host finds the bytes that were moved before it.
    let mut world = if calls.is_empty() { return Ok(()) } else { world::world()? };
    calls.into_iter().try_for_each(|(call, time)| streams::call_host(&mut world, stream, call, Some(time)))
}

/// Takes a graph's work over into an instantiated one of the same shape; else tells why not.
fn update(exec: GraphExecHandle, graph: GraphHandle) -> Outcome<Option<(u32, NodeHandle)>> {
    let mut world = world()?;
    let old = world.execs.get(exec)?;
    let new = execs::compile(&world, graph, old.flags)?;
    if new.steps.len() != old.steps.len() {
        return Ok(Some((TOPOLOGY_CHANGED, Handle::NULL)));
    }
    for (old, new) in old.steps.iter().zip(&new.steps) {
        if old.after != new.after {
            return Ok(Some((TOPOLOGY_CHANGED, new.node)));
        }
        if std::mem::discriminant(&old.op) != std::mem::discriminant(&new.op) {
            return Ok(Some((TYPE_CHANGED, new.node)));
        }
        // Memory belongs to the graph that it was instantiated from.
        if owns_memory(&new.op) && old.node != new.node {
            return Ok(Some((NOT_SUPPORTED_THERE, new.node)));
        }
    }
    let exec = world.execs.get_mut(exec)?;
    for (old, new) in exec.steps.iter_mut().zip(new.steps) {
        old.op = new.op;
    }
    exec.plan = None;
    exec.kept = new.kept;
    Ok(None)
}

export! {
    fn cuGraphInstantiate = cuGraphInstantiate_v2(
        out: Out<GraphExecHandle>, graph: GraphHandle, node: Out<NodeHandle>, log: Out<u8>, size: u64,
    ) {
        if size > 0 {
            log.put_if(0);
        }
        node.put_if(Handle::NULL);
        instantiate(out, graph, 0)
    }

    fn cuGraphInstantiateWithFlags(out: Out<GraphExecHandle>, graph: GraphHandle, flags: u64) {
        instantiate(out, graph, flags)
    }

    early twin fn |null| cuGraphInstantiateWithParams / cuGraphInstantiateWithParams_ptsz (
        out: Out<GraphExecHandle>, graph: GraphHandle, params: Out<InstantiateParams>,
    ) {
        let _ = null;
        let asked = params.get()?;
        instantiate(out, graph, asked.flags)?;
        params.put(InstantiateParams { error_node: 0, result: 0, ..asked })
    }

    fn cuGraphExecDestroy(exec: GraphExecHandle) {
        let mut world = world()?;
        for address in world.execs.remove(exec)?.memory() {
            graph_memory::disown_graph_memory(&mut world, address);
        }
        Ok(())
    }

    fn cuGraphExecGetFlags(exec: GraphExecHandle, flags: Out<u64>) {
        let world = world()?;
        flags.put(world.execs.get(exec)?.flags)
    }

    twin fn |null| cuGraphUpload / cuGraphUpload_ptsz (exec: GraphExecHandle, stream: StreamHandle) {
        let mut world = world()?;
        streams::stream(&mut world, null, stream)?;
        world.execs.get(exec).map(|_| ())
    }

    twin fn |null| cuGraphLaunch / cuGraphLaunch_ptsz (exec: GraphExecHandle, stream: StreamHandle) {
        launch(null, exec, stream)
    }

    fn cuGraphExecUpdate(
        exec: GraphExecHandle, graph: GraphHandle, node: Out<NodeHandle>, result: Out<u32>,
    ) {
        let refused = update(exec, graph)?;
        let (code, place) = refused.unwrap_or((0, Handle::NULL));
        node.put_if(place);
        result.put_if(code);
        if refused.is_some() { Err(GRAPH_EXEC_UPDATE_FAILURE) } else { Ok(()) }
    }

    fn cuGraphExecUpdate_v2(exec: GraphExecHandle, graph: GraphHandle, info: Out<UpdateResult>) {
        info.required()?;
        let refused = update(exec, graph)?;
        let (result, place) = refused.unwrap_or((0, Handle::NULL));
        info.put(UpdateResult { result, error_node: place.raw(), error_from: 0 })?;
        if refused.is_some() { Err(GRAPH_EXEC_UPDATE_FAILURE) } else { Ok(()) }
    }

    early fn cuGraphNodeSetEnabled(exec: GraphExecHandle, node: NodeHandle, enabled: u32) {
        exec.given()?;
        let mut world = world()?;
        let exec = world.execs.get_mut(exec)?;
        let step = exec.steps.iter_mut().find(|step| step.node == node).ok_or(INVALID_VALUE)?;
        if !matches!(step.op, Op::Kernel(_) | Op::Copy(_) | Op::Fill(_)) {
            return Err(INVALID_VALUE);
        }
        step.enabled = enabled != 0;
        exec.plan = None;
        Ok(())
    }

    early fn cuGraphNodeGetEnabled(exec: GraphExecHandle, node: NodeHandle, enabled: Out<u32>) {
        enabled.required()?;
        let world = world()?;
        let steps = &world.execs.get(exec)?.steps;
        let step = steps.iter().find(|step| step.node == node).ok_or(INVALID_VALUE)?;
        enabled.put(u32::from(step.enabled))
    }

    fn cuDeviceGraphMemTrim(device: i32) {
        let mut world = world()?;
        let (ordinal, _) = world.device(device)?;
        graph_memory::trim_graph_memory(&mut world, ordinal);
        Ok(())
    }

    fn cuDeviceGetGraphMemAttribute(device: i32, attribute: u32, value: Out<u64>) {
        let world = world()?;
        let usage = world.device(device)?.1.graph_memory;
        value.put(match attribute {
            0 => usage.used(),
            1 => usage.used_high,
            2 => usage.reserved,
            3 => usage.reserved_high,
            _ => return Err(INVALID_VALUE),
        })
    }

    fn cuDeviceSetGraphMemAttribute(device: i32, attribute: u32, value: In<u64>) {
        let mut world = world()?;
        let (ordinal, _) = world.device(device)?;
        // High marks can be set to zero only, which lowers them to what is there now.
        if value.get()? != 0 {
            return Err(INVALID_VALUE);
        }
        let usage = &mut world.devices[ordinal].graph_memory;
        match attribute {
            1 => usage.used_high = usage.used(),
            3 => usage.reserved_high = usage.reserved,
            _ => return Err(INVALID_VALUE),
        }
        Ok(())
    }
}
