//! From names to pins.

mod failure;
mod request;

pub use failure::{Chosen, Failure, Obstacle, Suggestion};
pub use request::{Base, LayerRequest, ReleaseFacts, Request, Resolution, ResolvedLayer};
