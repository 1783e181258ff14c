//! The calls of the server's APIs.

use std::fs;

/// A call that is routed otherwise than by `Calls` is not in the document of the APIs.
#[test]
fn each_call_of_the_apis_is_routed_where_it_is_described() {
    let api = tests::checkout("src/server/api");
    let mut read = 0;
    for folder in ["pools", "terraform"] {
        for entry in fs::read_dir(api.join(folder)).unwrap() {
            let file = entry.unwrap().path();
            let text = fs::read_to_string(&file).unwrap();
            let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
            assert!(!code.contains(".route("), "{}: add the call to Calls", file.display());
            read += 1;
        }
    }
    assert!(read > 40, "{read} files");
}
