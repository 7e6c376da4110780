//! What can be asked of an object: each verb as a method of [`crate::World`], the same for requests and for controllers.

pub(crate) mod admission;
mod binding;
mod create;
mod defaults;
mod delete;
mod evict;
mod scale;
mod update;

pub use delete::DeleteOptions;
pub use update::Part;
