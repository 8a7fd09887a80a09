//! stub
use super::Config;
#[derive(Debug)]
pub struct Limits;
impl Limits {
    pub fn new(_c: &Config) -> Self {
        Self
    }
}
