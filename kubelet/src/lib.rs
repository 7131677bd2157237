//! The kubelet's plugin interfaces: device plugins (v1beta1) and drivers of dynamic resource allocation (v1, v1beta1).
//!
//! A device plugin implements [`DevicePlugin`] and is kept registered by [`keep_device_plugin`]; a driver implements [`Driver`]
//! and is kept by [`keep_driver`]. Both come back when the kubelet is started anew, and when their socket is taken away.
//!
//! The files, bottom to top: the messages, `socket` and `server` (how they are taken), `client` (how they are sent), `device_plugin`,
//! `driver`.

/// The messages, made from `proto/`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod api {
    /// Of device plugins.
    pub mod device_plugin {
        include!(concat!(env!("OUT_DIR"), "/device_plugin.rs"));
    }
    /// Of dynamic resource allocation.
    pub mod dra {
        include!(concat!(env!("OUT_DIR"), "/dra.rs"));
    }
    /// Of the watcher of plugins.
    pub mod plugin_registration {
        include!(concat!(env!("OUT_DIR"), "/plugin_registration.rs"));
    }
    /// Of PodResources.
    pub mod pod_resources {
        include!(concat!(env!("OUT_DIR"), "/pod_resources.rs"));
    }
}
pub mod client;
mod device_plugin;
mod driver;
pub mod server;
mod socket;

pub use device_plugin::{DevicePlugin, Place, keep_device_plugin};
pub use driver::{Driver, DriverOptions, Prepared, keep_driver};
pub use tonic::Status;

/// What happens between the kubelet and a plugin, for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The kubelet has taken the plugin in.
    Registered,
    /// It has not, or cannot be reached; it is tried again.
    NotRegistered(String),
    /// The kubelet was started anew, or the plugin's socket was taken away: it registers again.
    Again,
}
