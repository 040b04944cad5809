//! The mesh on a lab.
