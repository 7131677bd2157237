//! Nodes of graphs: adding them, reading and changing what they do.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::ffi::c_void;

use crate::api::abi::{
    CopyParams, HostParams, KernelParams, KernelParams2, MemAllocParams, MemsetParams, NodeParams,
};
use crate::api::export::export;
use crate::model::objects::handle::{
    ContextHandle, EventHandle, GraphExecHandle, GraphHandle, Handle, NodeHandle,
};
use crate::model::objects::moves::Fill;
use crate::model::objects::op::{Function, HostCall, Launch, Op};
use crate::model::objects::request::Request;
use crate::model::operations::copies::{self, Cuboid};
use crate::model::operations::{execs, fills, graph_memory, graphs, modules, pools};
use crate::model::world::{World, world};
use crate::tools::ffi::{In, Out};
use crate::tools::status::{INVALID_CONTEXT, INVALID_HANDLE, INVALID_VALUE, NOT_SUPPORTED, Outcome, Status};

/// The device that a node's work is for: the current one.
fn ordinal(world: &World) -> usize {
    world.current_device().unwrap_or(0)
}

fn kernel_op(world: &World, params: &KernelParams) -> Outcome<Op> {
    let KernelParams { kernel, grid, block, shared, params, extra } = *params;
    let request = Request { kernel, grid, block, shared, params, extra, cooperative: false };
    modules::kernel_op(world, ordinal(world), &request)
}

fn kernel_op2(world: &World, params: &KernelParams2) -> Outcome<Op> {
    let kernel = if params.first.kernel.is_null() { params.kernel } else { params.first.kernel };
    kernel_op(world, &KernelParams { kernel, ..params.first })
}

fn copy_op(world: &mut World, params: &Cuboid) -> Outcome<Op> {
    Ok(Op::Copy(copies::resolve(world, params)?.ok_or(INVALID_VALUE)?))
}

fn fill_op(world: &mut World, params: &MemsetParams) -> Outcome<Op> {
    let MemsetParams { to, pitch, value, element, width, height } = *params;
    if !matches!(element, 1 | 2 | 4) {
        return Err(INVALID_VALUE);
    }
    Ok(Op::Fill(fills::resolve(world, (to, pitch, width, height), value, element)?.ok_or(INVALID_VALUE)?))
}

fn host_op(params: &HostParams) -> Outcome<Op> {
    let function = Function::Plain(params.function.ok_or(INVALID_VALUE)?);
    Ok(Op::Host(HostCall { function, data: params.data as usize }))
}

fn alloc_op(world: &mut World, params: Out<MemAllocParams>) -> Outcome<Op> {
    let asked = params.get()?;
    let ordinal = pools::located(world, asked.location)?;
    let context = world.current()?;
    let address = graph_memory::place_for_graph(world, ordinal, asked.size, context)?;
    params.put(MemAllocParams { address, ..asked })?;
    Ok(Op::Alloc(address, asked.size))
}

fn event_op(world: &World, event: EventHandle, op: fn(EventHandle) -> Op) -> Outcome<Op> {
    world.events.get(event).map(|_| op(event))
}

fn child_op(world: &mut World, child: GraphHandle) -> Outcome<Op> {
    Ok(Op::Child(graphs::clone_graph(world, child)?))
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
            let child = params.cast::<NodeParams<GraphHandle>>().get()?.params;
            child_op(world, child)
        }
        5 => Ok(Op::Empty),
        6 => event_op(world, params.cast::<NodeParams<EventHandle>>().get()?.params, Op::Wait),
        7 => event_op(world, params.cast::<NodeParams<EventHandle>>().get()?.params, Op::Record),
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
    out: Out<NodeHandle>,
    graph: GraphHandle,
    after: In<NodeHandle>,
    count: u64,
}

fn add(place: &Place, op: impl FnOnce(&mut World) -> Outcome<Op>) -> Outcome {
    place.out.required()?;
    let mut world = world()?;
    world.graphs.get(place.graph)?;
    let after = place.after.list(place.count as usize)?;
    let op = op(&mut world).map_err(as_parameter)?;
    match graphs::add_node(&mut world, place.graph, op, &after) {
        Ok(node) => place.out.put(node),
        Err(status) => {
            graphs::drop_belongings(&mut world, op);
            Err(status)
        }
    }
}

fn set(node: NodeHandle, op: impl FnOnce(&mut World) -> Outcome<Op>) -> Outcome {
    let mut world = world()?;
    world.nodes.get(node)?;
    let op = op(&mut world).map_err(as_parameter)?;
    let node = world.nodes.get_mut(node)?;
    if kind_of(&node.op) != kind_of(&op) {
        return Err(INVALID_VALUE);
    }
    let old = std::mem::replace(&mut node.op, op);
    if let Op::Child(_) = old {
        graphs::drop_belongings(&mut world, old);
    }
    Ok(())
}

fn set_exec(exec: GraphExecHandle, node: NodeHandle, op: impl FnOnce(&mut World) -> Outcome<Op>) -> Outcome {
    let mut world = world()?;
    world.execs.get(exec)?;
    let op = op(&mut world).map_err(as_parameter)?;
    execs::set_step(&mut world, exec, node, op)
}

fn get<T>(node: NodeHandle, out: Out<T>, read: impl FnOnce(&Op) -> Option<T>) -> Outcome {
    out.required()?;
    let world = world()?;
    out.put(read(&world.nodes.get(node)?.op).ok_or(INVALID_VALUE)?)
}

fn kernel_params(op: &Op) -> Option<KernelParams> {
    let Op::Kernel(launch) = *op else { return None };
    let Launch { kernel, grid, block, shared, params, extra, .. } = launch;
    Some(KernelParams { kernel, grid, block, shared, params, extra })
}

export! {
    fn cuGraphAddKernelNode(
        out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, count: u64, params: In<KernelParams>,
    ) {
        add(&Place { out, graph, after, count }, |world| kernel_op(world, &params.get()?))
    }

    fn cuGraphAddKernelNode_v2(
        out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, count: u64, params: In<KernelParams2>,
    ) {
        add(&Place { out, graph, after, count }, |world| kernel_op2(world, &params.get()?))
    }

    fn cuGraphAddMemcpyNode(
        out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, count: u64, params: In<Cuboid>,
        context: ContextHandle,
    ) {
        add(&Place { out, graph, after, count }, |world| {
            world.active(context)?;
            copy_op(world, &params.get()?)
        })
    }

    fn cuGraphAddMemsetNode(
        out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, count: u64, params: In<MemsetParams>,
        context: ContextHandle,
    ) {
        add(&Place { out, graph, after, count }, |world| {
            world.active(context)?;
            fill_op(world, &params.get()?)
        })
    }

    early fn cuGraphAddHostNode(
        out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, count: u64, params: In<HostParams>,
    ) {
        add(&Place { out, graph, after, count }, |_| host_op(&params.get()?))
    }

    fn cuGraphAddChildGraphNode(
        out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, count: u64, child: GraphHandle,
    ) {
        add(&Place { out, graph, after, count }, |world| child_op(world, child))
    }

    early fn cuGraphAddEmptyNode(out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, count: u64) {
        add(&Place { out, graph, after, count }, |_| Ok(Op::Empty))
    }

    early fn cuGraphAddEventRecordNode(
        out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, count: u64, event: EventHandle,
    ) {
        add(&Place { out, graph, after, count }, |world| event_op(world, event, Op::Record))
    }

    early fn cuGraphAddEventWaitNode(
        out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, count: u64, event: EventHandle,
    ) {
        add(&Place { out, graph, after, count }, |world| event_op(world, event, Op::Wait))
    }

    fn cuGraphAddMemAllocNode(
        out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, count: u64, params: Out<MemAllocParams>,
    ) {
        add(&Place { out, graph, after, count }, |world| alloc_op(world, params))
    }

    fn cuGraphAddMemFreeNode(
        out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, count: u64, address: u64,
    ) {
        add(&Place { out, graph, after, count }, |_| Ok(Op::Free(address)))
    }

    early fn cuGraphAddNode(
        out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, count: u64, params: Out<u8>,
    ) {
        add(&Place { out, graph, after, count }, |world| described(world, params))
    }

    early fn cuGraphAddNode_v2(
        out: Out<NodeHandle>, graph: GraphHandle, after: In<NodeHandle>, edges: In<u64>, count: u64,
        params: Out<u8>,
    ) {
        let _ = edges;
        add(&Place { out, graph, after, count }, |world| described(world, params))
    }

    early fn cuGraphNodeSetParams(node: NodeHandle, params: Out<u8>) {
        params.required()?;
        set(node, |world| described(world, params))
    }

    early fn cuGraphExecNodeSetParams(exec: GraphExecHandle, node: NodeHandle, params: Out<u8>) {
        params.required()?;
        set_exec(exec, node, |world| described(world, params))
    }

    early fn cuGraphKernelNodeSetParams(node: NodeHandle, params: In<KernelParams>) {
        node.given()?;
        set(node, |world| kernel_op(world, &params.get()?))
    }

    early fn cuGraphKernelNodeSetParams_v2(node: NodeHandle, params: In<KernelParams2>) {
        node.given()?;
        set(node, |world| kernel_op2(world, &params.get()?))
    }

    early fn cuGraphExecKernelNodeSetParams(exec: GraphExecHandle, node: NodeHandle, params: In<KernelParams>) {
        exec.given()?;
        set_exec(exec, node, |world| kernel_op(world, &params.get()?))
    }

    early fn cuGraphExecKernelNodeSetParams_v2(exec: GraphExecHandle, node: NodeHandle, params: In<KernelParams2>) {
        exec.given()?;
        set_exec(exec, node, |world| kernel_op2(world, &params.get()?))
    }

    early fn cuGraphKernelNodeGetParams(node: NodeHandle, params: Out<KernelParams>) {
        get(node, params, kernel_params)
    }

    early fn cuGraphKernelNodeGetParams_v2(node: NodeHandle, params: Out<KernelParams2>) {
        get(node, params, |op| kernel_params(op).map(|first| KernelParams2 { first, kernel: Handle::NULL, context: 0 }))
    }

    early fn cuGraphMemcpyNodeSetParams(node: NodeHandle, params: In<Cuboid>) {
        node.given()?;
        set(node, |world| copy_op(world, &params.get()?))
    }

    early fn cuGraphExecMemcpyNodeSetParams(
        exec: GraphExecHandle, node: NodeHandle, params: In<Cuboid>, context: ContextHandle,
    ) {
        exec.given()?;
        set_exec(exec, node, |world| {
            world.active(context)?;
            copy_op(world, &params.get()?)
        })
    }

    fn cuGraphMemcpyNodeGetParams(node: NodeHandle, params: Out<Cuboid>) {
        get(node, params, |op| if let Op::Copy(copy) = op { Some(Cuboid::of(copy)) } else { None })
    }

    early fn cuGraphMemsetNodeSetParams(node: NodeHandle, params: In<MemsetParams>) {
        node.given()?;
        set(node, |world| fill_op(world, &params.get()?))
    }

    early fn cuGraphExecMemsetNodeSetParams(
        exec: GraphExecHandle, node: NodeHandle, params: In<MemsetParams>, context: ContextHandle,
    ) {
        exec.given()?;
        set_exec(exec, node, |world| {
            world.active(context)?;
            fill_op(world, &params.get()?)
        })
    }

    fn cuGraphMemsetNodeGetParams(node: NodeHandle, params: Out<MemsetParams>) {
        get(node, params, |op| {
            let Op::Fill(Fill { to, pitch, value, element, width, height }) = *op else { return None };
            Some(MemsetParams { to, pitch, value, element, width: width / u64::from(element), height })
        })
    }

    early fn cuGraphHostNodeSetParams(node: NodeHandle, params: In<HostParams>) {
        node.given()?;
        set(node, |_| host_op(&params.get()?))
    }

    early fn cuGraphExecHostNodeSetParams(exec: GraphExecHandle, node: NodeHandle, params: In<HostParams>) {
        exec.given()?;
        set_exec(exec, node, |_| host_op(&params.get()?))
    }

    early fn cuGraphHostNodeGetParams(node: NodeHandle, params: Out<HostParams>) {
        get(node, params, |op| match *op {
            Op::Host(HostCall { function: Function::Plain(function), data }) => {
                Some(HostParams { function: Some(function), data: data as u64 })
            }
            _ => None,
        })
    }

    early fn cuGraphExecChildGraphNodeSetParams(exec: GraphExecHandle, node: NodeHandle, child: GraphHandle) {
        exec.given()?;
        // The steps of a graph within an instantiated graph are laid open: its own nodes can be set, or the
        // whole be updated.
        let _ = child;
        let world = world()?;
        world.execs.get(exec)?;
        world.nodes.get(node)?;
        Err(NOT_SUPPORTED)
    }

    fn cuGraphChildGraphNodeGetGraph(node: NodeHandle, graph: Out<GraphHandle>) {
        get(node, graph, |op| if let Op::Child(child) = op { Some(*child) } else { None })
    }

    early fn cuGraphEventRecordNodeGetEvent(node: NodeHandle, event: Out<EventHandle>) {
        get(node, event, |op| if let Op::Record(event) = op { Some(*event) } else { None })
    }

    early fn cuGraphEventRecordNodeSetEvent(node: NodeHandle, event: EventHandle) {
        node.given()?;
        set(node, |world| event_op(world, event, Op::Record))
    }

    early fn cuGraphExecEventRecordNodeSetEvent(exec: GraphExecHandle, node: NodeHandle, event: EventHandle) {
        exec.given()?;
        set_exec(exec, node, |world| event_op(world, event, Op::Record))
    }

    early fn cuGraphEventWaitNodeGetEvent(node: NodeHandle, event: Out<EventHandle>) {
        get(node, event, |op| if let Op::Wait(event) = op { Some(*event) } else { None })
    }

    early fn cuGraphEventWaitNodeSetEvent(node: NodeHandle, event: EventHandle) {
        node.given()?;
        set(node, |world| event_op(world, event, Op::Wait))
    }

    early fn cuGraphExecEventWaitNodeSetEvent(exec: GraphExecHandle, node: NodeHandle, event: EventHandle) {
        exec.given()?;
        set_exec(exec, node, |world| event_op(world, event, Op::Wait))
    }

    early fn cuGraphMemAllocNodeGetParams(node: NodeHandle, params: Out<MemAllocParams>) {
        get(node, params, |op| if let Op::Alloc(address, size) = op { Some(MemAllocParams::of(*address, *size)) } else { None })
    }

    early fn cuGraphMemFreeNodeGetParams(node: NodeHandle, address: Out<u64>) {
        get(node, address, |op| if let Op::Free(address) = op { Some(*address) } else { None })
    }

    fn cuGraphNodeGetType(node: NodeHandle, kind: Out<u32>) {
        get(node, kind, |op| Some(kind_of(op)))
    }

    fn cuGraphKernelNodeCopyAttributes(to: NodeHandle, from: NodeHandle) {
        let world = world()?;
        world.nodes.get(to)?;
        world.nodes.get(from).map(|_| ())
    }

    fn cuGraphKernelNodeSetAttribute(node: NodeHandle, attribute: u32, value: *const c_void) {
        let _ = (attribute, value);
        world()?.nodes.get(node).map(|_| ())
    }

    fn cuGraphKernelNodeGetAttribute(node: NodeHandle, attribute: u32, value: Out<[u64; 8]>) {
        let _ = attribute;
        get(node, value, |op| matches!(op, Op::Kernel(_)).then_some([0; 8]))
    }
}
