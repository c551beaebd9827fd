//! Tests of the reader as its users see it.
