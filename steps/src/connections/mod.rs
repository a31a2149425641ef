//! Connections: how a system is reached.
