//! The site configuration of an appliance and its rules.
