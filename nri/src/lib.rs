//! Plugins of the Node Resource Interface, with which containerd (from 1.7, by default from 2.0) and CRI-O let a program of
//! the node see every container before it is made, and adjust it.
//!
//! A plugin implements [`Plugin`] and is kept connected by [`keep()`]:
//!
//! ```no_run
//! use nri_plugin::{Adjust, Events, Options, Plugin, Status, api};
//!
//! struct Marks;
//!
//! impl Plugin for Marks {
//!     fn events(&self) -> Events {
//!         Events::CREATE_CONTAINER
//!     }
//!
//!     fn create_container(
//!         &self,
//!         _: api::CreateContainerRequest,
//!     ) -> Result<api::CreateContainerResponse, Status> {
//!         let adjust = api::ContainerAdjustment::default().with_variable("MARKED", "yes");
//!         Ok(api::CreateContainerResponse { adjust: Some(adjust), ..Default::default() })
//!     }
//! }
//!
//! # async fn run() {
//! nri_plugin::keep(std::sync::Arc::new(Marks), &Options::new("marks", 20)).await;
//! # }
//! ```
//!
//! The files, bottom to top: [`api`] (the messages), `ttrpc` and `mux` (how they are sent), `runtime` (whom a plugin calls),
//! `plugin` (what a plugin is), `calls` (which message is which method), `connection` (to one runtime), `keep` (one after
//! the other).

mod adjust;
/// The messages, made from `proto/api.proto` as containerd publishes it.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/nri.pkg.api.v1alpha1.rs"));
}
mod calls;
mod connection;
mod error;
mod keep;
mod mux;
mod options;
mod plugin;
mod runtime;
mod ttrpc;

pub use adjust::{Adjust, marked_for_removal};
pub use connection::serve;
pub use error::{Error, Status, code};
pub use keep::keep;
pub use options::{DEFAULT_SOCKET, Options};
pub use plugin::{Events, Plugin};
pub use runtime::Runtime;
