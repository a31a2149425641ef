//! What happens next: a pure function of the plan, the state and the time.
