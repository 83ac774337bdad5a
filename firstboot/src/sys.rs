//! The one module with `unsafe`: system calls that rustix has no safe call for.

#![allow(unsafe_code, reason = "each block says why it is sound")]
