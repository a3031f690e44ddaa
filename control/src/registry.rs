//! Lands with its slice.
