//! stub until merge
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
/// Fence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Fence {
    /// epoch
    pub epoch: u64,
    /// term
    pub term: u64,
}
