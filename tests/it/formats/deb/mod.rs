//! Debian repositories: what is trusted, what is refused, and in which words.

mod archive;
mod fetch;
mod judge;
mod lists;
pub(crate) mod server;
mod signature;
mod signer;
mod source;
