//! stub
/// stub
pub fn variables() -> Vec<(String, String)> {
    Vec::new()
}
