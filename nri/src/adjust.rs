//! Adjustments as they are said: a name with `-` before it means that what has the name goes.

use crate::api;

/// The name of something that is to go.
pub fn marked_for_removal(name: &str) -> String {
    format!("-{name}")
}

/// Puts an adjustment together.
pub trait Adjust: Sized {
    /// Sets a variable, whatever value it had.
    #[must_use]
    fn with_variable(self, name: &str, value: &str) -> Self;

    /// Takes a variable away.
    #[must_use]
    fn without_variable(self, name: &str) -> Self;

    /// Mounts this, in the stead of what is mounted at the same place.
    #[must_use]
    fn with_mount(self, mount: api::Mount) -> Self;

    /// Takes the mount at this place away.
    #[must_use]
    fn without_mount(self, destination: &str) -> Self;

    /// Annotates the container.
    #[must_use]
    fn with_annotation(self, key: &str, value: &str) -> Self;

    /// Runs a program in the runtime's namespaces before the container is started.
    #[must_use]
    fn with_create_runtime_hook(self, hook: api::Hook) -> Self;
}

impl Adjust for api::ContainerAdjustment {
    fn with_variable(mut self, name: &str, value: &str) -> Self {
        self = self.without_variable(name);
        self.env.push(api::KeyValue { key: name.to_owned(), value: value.to_owned() });
        self
    }

    fn without_variable(mut self, name: &str) -> Self {
        self.env.push(api::KeyValue { key: marked_for_removal(name), value: String::new() });
        self
    }

    fn with_mount(mut self, mount: api::Mount) -> Self {
        self = self.without_mount(&mount.destination.clone());
        self.mounts.push(mount);
        self
    }

    fn without_mount(mut self, destination: &str) -> Self {
        let destination = marked_for_removal(destination);
        self.mounts.push(api::Mount { destination, ..api::Mount::default() });
        self
    }

    fn with_annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    fn with_create_runtime_hook(mut self, hook: api::Hook) -> Self {
        self.hooks.get_or_insert_default().create_runtime.push(hook);
        self
    }
}
