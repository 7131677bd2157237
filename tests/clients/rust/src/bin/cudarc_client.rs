//! cudarc: what most Rust programs reach CUDA with (candle, burn). Says what the Python clients say.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

const PTX: &str = ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry add_one(.param .u64 a)\n{\n    ret;\n}\n";
const PIECE: usize = 256 << 20;

fn main() -> Result<(), DriverError> {
    let context = CudaContext::new(0)?;
    println!("device={}", context.name()?);

    let stream = context.new_stream()?;
    copies(&stream)?;
    println!("step.copies=1");
    kernels(&context, &stream)?;
    println!("step.kernels=1");

    println!("total={}", cudarc::driver::result::mem_get_info()?.1);
    let mut held = Vec::new();
    let refusal = loop {
        // SAFETY: nobody reads what is in it.
        match unsafe { stream.alloc::<u8>(PIECE) } {
            Ok(piece) => held.push(piece),
            Err(refusal) => break refusal,
        }
    };
    println!("held={}\nrefusal={:?}\nstep.out_of_memory=1", held.len() * PIECE, refusal.0);
    Ok(())
}

fn copies(stream: &Arc<CudaStream>) -> Result<(), DriverError> {
    let there: Vec<f32> = (0..1000).map(|number| number as f32).collect();
    let device: CudaSlice<f32> = stream.clone_htod(&there)?;
    assert_eq!(stream.clone_dtoh(&device)?, there);
    Ok(())
}

fn kernels(context: &Arc<CudaContext>, stream: &Arc<CudaStream>) -> Result<(), DriverError> {
    let kernel = context.load_module(Ptx::from_src(PTX))?.load_function("add_one")?;
    let mut numbers: CudaSlice<f32> = stream.alloc_zeros(1000)?;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut numbers);
    // SAFETY: the kernel takes one pointer.
    unsafe { launch.launch(LaunchConfig::for_num_elems(1000)) }?;
    stream.synchronize()
}
