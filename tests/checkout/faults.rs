//! What `scripts/test --full` writes again is what stands in the documents.

#[test]
fn the_fault_matrix_has_the_text_that_it_is_written_with() {
    let read = |file| std::fs::read_to_string(tests::checkout(file)).unwrap();
    let (page, text) = (read("docs/faults.md"), read("scripts/lib/faults.md"));
    let written = page.split_once("\n| | ").expect("the results are a table").0;
    assert_eq!(written, text, "write it in scripts/lib/faults.md, too");
}
