//! Who may do what: asked by every handler before anything else, never by apply.

use super::outcome::Failure;
use prkdb_types::ErrorCode;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Somebody on this machine, or wherever listening without authentication was allowed.
    Anonymous,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Records are read.
    Read,
    /// Records are written.
    Write,
    /// Collections are created or dropped.
    Manage,
    /// The cluster is looked at.
    Observe,
    /// The cluster hands out everything it has.
    Administer,
}

/// To what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A collection, by name.
    Collection(&'a str),
    /// The cluster as a whole.
    Cluster,
}

/// Decides what is allowed.
pub trait Policy: Send + Sync + std::fmt::Debug {
    /// Refuses what is not allowed.
    ///
    /// # Errors
    /// [`ErrorCode::PermissionDenied`].
    fn authorise(
        &self,
        principal: &Principal,
        action: Action,
        resource: Resource<'_>,
    ) -> Result<(), Failure>;
}

/// Allows everything: who can reach a node on loopback may use it.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn authorise(&self, _: &Principal, _: Action, _: Resource<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// Allows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct DenyAll;

impl Policy for DenyAll {
    fn authorise(
        &self,
        _: &Principal,
        action: Action,
        resource: Resource<'_>,
    ) -> Result<(), Failure> {
        let on = match resource {
            Resource::Collection(name) => format!("collection '{name}'"),
            Resource::Cluster => "the cluster".to_owned(),
        };
        let message = format!("{action:?} on {on} is not permitted").to_lowercase();
        Err(Failure::new(ErrorCode::PermissionDenied, message))
    }
}
