//! Nodes of graphs: adding them, reading and changing what they do.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::ffi::c_void;

use crate::abi::{
    CopyParams, HostParams, KernelParams, KernelParams2, MemAllocParams, MemsetParams, NodeParams,
};
use crate::context::Context;
use crate::event::Event;
use crate::ffi::{In, Out, Outcome, export};
use crate::graph::{Graph, GraphExec, Node};
use crate::hostfn::{Function, HostCall};
use crate::launch::Request;
use crate::memory::copy::{self, Cuboid};
use crate::memory::fill;
use crate::op::Op;
use crate::status::{INVALID_CONTEXT, INVALID_HANDLE, INVALID_VALUE, NOT_SUPPORTED, Status};
use crate::table::Handle;
use crate::world::{World, world};

/// The device that a node's work is for: the current one.
fn ordinal(world: &World) -> usize {
    world.current_device().unwrap_or(0)
}

fn kernel_op(world: &World, params: &KernelParams) -> Outcome<Op> {
    let KernelParams { kernel, grid, block, shared, params, extra } = *params;
    let request = Request { kernel, grid, block, shared, params, extra, cooperative: false };
    world.kernel_op(ordinal(world), &request)
}

fn kernel_op2(world: &World, params: &KernelParams2) -> Outcome<Op> {
    let kernel = if params.first.kernel.is_null() { params.kernel } else { params.first.kernel };
    kernel_op(world, &KernelParams { kernel, ..params.first })
}

fn copy_op(world: &mut World, params: &Cuboid) -> Outcome<Op> {
    Ok(Op::Copy(copy::resolve(world, params)?.ok_or(INVALID_VALUE)?))
}

fn fill_op(world: &mut World, params: &MemsetParams) -> Outcome<Op> {
    let MemsetParams { to, pitch, value, element, width, height } = *params;
    if !matches!(element, 1 | 2 | 4) {
        return Err(INVALID_VALUE);
    }
    Ok(Op::Fill(fill::resolve(world, (to, pitch, width, height), value, element)?.ok_or(INVALID_VALUE)?))
}

fn host_op(params: &HostParams) -> Outcome<Op> {
    let function = Function::Plain(params.function.ok_or(INVALID_VALUE)?);
    Ok(Op::Host(HostCall { function, data: params.data as usize }))
}

fn alloc_op(world: &mut World, params: Out<MemAllocParams>) -> Outcome<Op> {
    let asked = params.get()?;
    let ordinal = world.located(asked.location)?;
    let context = world.current()?;
    let address = world.place_for_graph(ordinal, asked.size, context)?;
    params.put(MemAllocParams { address, ..asked })?;
    Ok(Op::Alloc(address, asked.size))
}

fn event_op(world: &World, event: Handle<Event>, op: fn(Handle<Event>) -> Op) -> Outcome<Op> {
    world.events.get(event).map(|_| op(event))
}

fn child_op(world: &mut World, child: Handle<Graph>) -> Outcome<Op> {
    Ok(Op::Child(world.clone_graph(child)?))
}

/// What a `CUgraphNodeParams` describes.
fn described(world: &mut World, params: Out<u8>) -> Outcome<Op> {
    let kind = params.cast::<u32>().get()?;
    match kind {
        0 => kernel_op2(world, &params.cast::<NodeParams<KernelParams2>>().get()?.params),
        1 => copy_op(world, &params.cast::<NodeParams<CopyParams<Cuboid>>>().get()?.params.copy),
        2 => fill_op(world, &params.cast::<NodeParams<MemsetParams>>().get()?.params),
        3 => host_op(&params.cast::<NodeParams<HostParams>>().get()?.params),
        4 => {
            let child = params.cast::<NodeParams<Handle<Graph>>>().get()?.params;
            child_op(world, child)
        }
        5 => Ok(Op::Empty),
        6 => event_op(world, params.cast::<NodeParams<Handle<Event>>>().get()?.params, Op::Wait),
        7 => event_op(world, params.cast::<NodeParams<Handle<Event>>>().get()?.params, Op::Record),
        10 => alloc_op(world, params.skip(size_of::<NodeParams<()>>()).cast()),
        11 => Ok(Op::Free(params.cast::<NodeParams<u64>>().get()?.params)),
        8 | 9 | 12 | 13 => Err(NOT_SUPPORTED),
        _ => Err(INVALID_VALUE),
    }
}

/// `CUgraphNodeType` of an operation.
fn kind_of(op: &Op) -> u32 {
    match op {
        Op::Kernel(_) => 0,
        Op::Copy(_) => 1,
        Op::Fill(_) => 2,
        Op::Host(HostCall { function: Function::Write(_) | Function::Await(..), .. }) => 12,
        Op::Host(_) => 3,
        Op::Child(_) => 4,
        Op::Empty => 5,
        Op::Wait(_) => 6,
        Op::Record(_) => 7,
        Op::Alloc(..) => 10,
        Op::Free(_) => 11,
    }
}

/// Of what a node is to do, a graph tells only that it is wrong.
fn as_parameter(status: Status) -> Status {
    if matches!(status, INVALID_HANDLE | INVALID_CONTEXT) { INVALID_VALUE } else { status }
}

/// Where a node goes and what comes before it.
struct Place {
    out: Out<Handle<Node>>,
    graph: Handle<Graph>,
    after: In<Handle<Node>>,
    count: u64,
}

fn add(place: &Place, op: impl FnOnce(&mut World) -> Outcome<Op>) -> Outcome {
    place.out.required()?;
    let mut world = world()?;
    world.graphs.get(place.graph)?;
    let after = place.after.list(place.count as usize)?;
    let op = op(&mut world).map_err(as_parameter)?;
    match world.add_node(place.graph, op, &after) {
        Ok(node) => place.out.put(node),
        Err(status) => {
            world.drop_belongings(op);
            Err(status)
        }
    }
}

fn set(node: Handle<Node>, op: impl FnOnce(&mut World) -> Outcome<Op>) -> Outcome {
    let mut world = world()?;
    world.nodes.get(node)?;
    let op = op(&mut world).map_err(as_parameter)?;
    let node = world.nodes.get_mut(node)?;
    if kind_of(&node.op) != kind_of(&op) {
        return Err(INVALID_VALUE);
    }
    let old = std::mem::replace(&mut node.op, op);
    if let Op::Child(_) = old {
        world.drop_belongings(old);
    }
    Ok(())
}

fn set_exec(
    exec: Handle<GraphExec>,
    node: Handle<Node>,
    op: impl FnOnce(&mut World) -> Outcome<Op>,
) -> Outcome {
    let mut world = world()?;
    world.execs.get(exec)?;
    let op = op(&mut world).map_err(as_parameter)?;
    world.set_step(exec, node, op)
}

fn get<T>(node: Handle<Node>, out: Out<T>, read: impl FnOnce(&Op) -> Option<T>) -> Outcome {
    out.required()?;
    let world = world()?;
    out.put(read(&world.nodes.get(node)?.op).ok_or(INVALID_VALUE)?)
}

fn kernel_params(op: &Op) -> Option<KernelParams> {
    let Op::Kernel(launch) = *op else { return None };
    let crate::op::Launch { kernel, grid, block, shared, params, extra, .. } = launch;
    Some(KernelParams { kernel, grid, block, shared, params, extra })
}

export! {
    fn cuGraphAddKernelNode(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64, params: In<KernelParams>,
    ) {
        add(&Place { out, graph, after, count }, |world| kernel_op(world, &params.get()?))
    }

    fn cuGraphAddKernelNode_v2(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64, params: In<KernelParams2>,
    ) {
        add(&Place { out, graph, after, count }, |world| kernel_op2(world, &params.get()?))
    }

    fn cuGraphAddMemcpyNode(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64, params: In<Cuboid>,
        context: Handle<Context>,
    ) {
        add(&Place { out, graph, after, count }, |world| {
            world.active(context)?;
            copy_op(world, &params.get()?)
        })
    }

    fn cuGraphAddMemsetNode(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64, params: In<MemsetParams>,
        context: Handle<Context>,
    ) {
        add(&Place { out, graph, after, count }, |world| {
            world.active(context)?;
            fill_op(world, &params.get()?)
        })
    }

    early fn cuGraphAddHostNode(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64, params: In<HostParams>,
    ) {
        add(&Place { out, graph, after, count }, |_| host_op(&params.get()?))
    }

    fn cuGraphAddChildGraphNode(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64, child: Handle<Graph>,
    ) {
        add(&Place { out, graph, after, count }, |world| child_op(world, child))
    }

    early fn cuGraphAddEmptyNode(out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64) {
        add(&Place { out, graph, after, count }, |_| Ok(Op::Empty))
    }

    early fn cuGraphAddEventRecordNode(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64, event: Handle<Event>,
    ) {
        add(&Place { out, graph, after, count }, |world| event_op(world, event, Op::Record))
    }

    early fn cuGraphAddEventWaitNode(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64, event: Handle<Event>,
    ) {
        add(&Place { out, graph, after, count }, |world| event_op(world, event, Op::Wait))
    }

    fn cuGraphAddMemAllocNode(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64, params: Out<MemAllocParams>,
    ) {
        add(&Place { out, graph, after, count }, |world| alloc_op(world, params))
    }

    fn cuGraphAddMemFreeNode(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64, address: u64,
    ) {
        add(&Place { out, graph, after, count }, |_| Ok(Op::Free(address)))
    }

    early fn cuGraphAddNode(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64, params: Out<u8>,
    ) {
        add(&Place { out, graph, after, count }, |world| described(world, params))
    }

    early fn cuGraphAddNode_v2(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, edges: In<u64>, count: u64,
        params: Out<u8>,
    ) {
        let _ = edges;
        add(&Place { out, graph, after, count }, |world| described(world, params))
    }

    early fn cuGraphNodeSetParams(node: Handle<Node>, params: Out<u8>) {
        params.required()?;
        set(node, |world| described(world, params))
    }

    early fn cuGraphExecNodeSetParams(exec: Handle<GraphExec>, node: Handle<Node>, params: Out<u8>) {
        params.required()?;
        set_exec(exec, node, |world| described(world, params))
    }

    early fn cuGraphKernelNodeSetParams(node: Handle<Node>, params: In<KernelParams>) {
        node.given()?;
        set(node, |world| kernel_op(world, &params.get()?))
    }

    early fn cuGraphKernelNodeSetParams_v2(node: Handle<Node>, params: In<KernelParams2>) {
        node.given()?;
        set(node, |world| kernel_op2(world, &params.get()?))
    }

    early fn cuGraphExecKernelNodeSetParams(exec: Handle<GraphExec>, node: Handle<Node>, params: In<KernelParams>) {
        exec.given()?;
        set_exec(exec, node, |world| kernel_op(world, &params.get()?))
    }

    early fn cuGraphExecKernelNodeSetParams_v2(exec: Handle<GraphExec>, node: Handle<Node>, params: In<KernelParams2>) {
        exec.given()?;
        set_exec(exec, node, |world| kernel_op2(world, &params.get()?))
    }

    early fn cuGraphKernelNodeGetParams(node: Handle<Node>, params: Out<KernelParams>) {
        get(node, params, kernel_params)
    }

    early fn cuGraphKernelNodeGetParams_v2(node: Handle<Node>, params: Out<KernelParams2>) {
        get(node, params, |op| kernel_params(op).map(|first| KernelParams2 { first, kernel: Handle::NULL, context: 0 }))
    }

    early fn cuGraphMemcpyNodeSetParams(node: Handle<Node>, params: In<Cuboid>) {
        node.given()?;
        set(node, |world| copy_op(world, &params.get()?))
    }

    early fn cuGraphExecMemcpyNodeSetParams(
        exec: Handle<GraphExec>, node: Handle<Node>, params: In<Cuboid>, context: Handle<Context>,
    ) {
        exec.given()?;
        set_exec(exec, node, |world| {
            world.active(context)?;
            copy_op(world, &params.get()?)
        })
    }

    fn cuGraphMemcpyNodeGetParams(node: Handle<Node>, params: Out<Cuboid>) {
        get(node, params, |op| if let Op::Copy(copy) = op { Some(Cuboid::of(copy)) } else { None })
    }

    early fn cuGraphMemsetNodeSetParams(node: Handle<Node>, params: In<MemsetParams>) {
        node.given()?;
        set(node, |world| fill_op(world, &params.get()?))
    }

    early fn cuGraphExecMemsetNodeSetParams(
        exec: Handle<GraphExec>, node: Handle<Node>, params: In<MemsetParams>, context: Handle<Context>,
    ) {
        exec.given()?;
        set_exec(exec, node, |world| {
            world.active(context)?;
            fill_op(world, &params.get()?)
        })
    }

    fn cuGraphMemsetNodeGetParams(node: Handle<Node>, params: Out<MemsetParams>) {
        get(node, params, |op| {
            let Op::Fill(crate::op::Fill { to, pitch, value, element, width, height }) = *op else { return None };
            Some(MemsetParams { to, pitch, value, element, width: width / u64::from(element), height })
        })
    }

    early fn cuGraphHostNodeSetParams(node: Handle<Node>, params: In<HostParams>) {
        node.given()?;
        set(node, |_| host_op(&params.get()?))
    }

    early fn cuGraphExecHostNodeSetParams(exec: Handle<GraphExec>, node: Handle<Node>, params: In<HostParams>) {
        exec.given()?;
        set_exec(exec, node, |_| host_op(&params.get()?))
    }

    early fn cuGraphHostNodeGetParams(node: Handle<Node>, params: Out<HostParams>) {
        get(node, params, |op| match *op {
            Op::Host(HostCall { function: Function::Plain(function), data }) => {
                Some(HostParams { function: Some(function), data: data as u64 })
            }
            _ => None,
        })
    }

    early fn cuGraphExecChildGraphNodeSetParams(exec: Handle<GraphExec>, node: Handle<Node>, child: Handle<Graph>) {
        exec.given()?;
        // The steps of a graph within an instantiated graph are laid open: its own nodes can be set, or the
        // whole be updated.
        let _ = child;
        let world = world()?;
        world.execs.get(exec)?;
        world.nodes.get(node)?;
        Err(NOT_SUPPORTED)
    }

    fn cuGraphChildGraphNodeGetGraph(node: Handle<Node>, graph: Out<Handle<Graph>>) {
        get(node, graph, |op| if let Op::Child(child) = op { Some(*child) } else { None })
    }

    early fn cuGraphEventRecordNodeGetEvent(node: Handle<Node>, event: Out<Handle<Event>>) {
        get(node, event, |op| if let Op::Record(event) = op { Some(*event) } else { None })
    }

    early fn cuGraphEventRecordNodeSetEvent(node: Handle<Node>, event: Handle<Event>) {
        node.given()?;
        set(node, |world| event_op(world, event, Op::Record))
    }

    early fn cuGraphExecEventRecordNodeSetEvent(exec: Handle<GraphExec>, node: Handle<Node>, event: Handle<Event>) {
        exec.given()?;
        set_exec(exec, node, |world| event_op(world, event, Op::Record))
    }

    early fn cuGraphEventWaitNodeGetEvent(node: Handle<Node>, event: Out<Handle<Event>>) {
        get(node, event, |op| if let Op::Wait(event) = op { Some(*event) } else { None })
    }

    early fn cuGraphEventWaitNodeSetEvent(node: Handle<Node>, event: Handle<Event>) {
        node.given()?;
        set(node, |world| event_op(world, event, Op::Wait))
    }

    early fn cuGraphExecEventWaitNodeSetEvent(exec: Handle<GraphExec>, node: Handle<Node>, event: Handle<Event>) {
        exec.given()?;
        set_exec(exec, node, |world| event_op(world, event, Op::Wait))
    }

    early fn cuGraphMemAllocNodeGetParams(node: Handle<Node>, params: Out<MemAllocParams>) {
        get(node, params, |op| if let Op::Alloc(address, size) = op { Some(MemAllocParams::of(*address, *size)) } else { None })
    }

    early fn cuGraphMemFreeNodeGetParams(node: Handle<Node>, address: Out<u64>) {
        get(node, address, |op| if let Op::Free(address) = op { Some(*address) } else { None })
    }

    fn cuGraphNodeGetType(node: Handle<Node>, kind: Out<u32>) {
        get(node, kind, |op| Some(kind_of(op)))
    }

    fn cuGraphKernelNodeCopyAttributes(to: Handle<Node>, from: Handle<Node>) {
        let world = world()?;
        world.nodes.get(to)?;
        world.nodes.get(from).map(|_| ())
    }

    fn cuGraphKernelNodeSetAttribute(node: Handle<Node>, attribute: u32, value: *const c_void) {
        let _ = (attribute, value);
        world()?.nodes.get(node).map(|_| ())
    }

    fn cuGraphKernelNodeGetAttribute(node: Handle<Node>, attribute: u32, value: Out<[u64; 8]>) {
        let _ = attribute;
        get(node, value, |op| matches!(op, Op::Kernel(_)).then_some([0; 8]))
    }
}
