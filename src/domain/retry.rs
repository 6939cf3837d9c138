//! Which failures may be tried again, and within which budget.
