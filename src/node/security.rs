//! stub
#[derive(Debug)]
pub struct AllowAll;
