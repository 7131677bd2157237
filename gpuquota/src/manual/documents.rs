//! What the documents tell a newcomer to type is a command line of this program.

#[test]
fn every_command_of_the_quick_starts_parses() {
    let mut commands = 0;
    for name in ["quickstart", "install"] {
        let path = format!("{}/../docs/{name}.md", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect("a document");
        let fenced = text.lines().filter_map(|line| line.strip_prefix("    "));
        let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        for line in fenced.chain(quoted) {
            let line = line.strip_prefix("bin/").unwrap_or(line);
            // A name alone is a mention, and what stands behind # is a word to the reader.
            let words: Vec<&str> = line.split_whitespace().take_while(|word| *word != "#").collect();
            if words.len() < 2 || words[0] != "gpuquota" {
                continue;
            }
            commands += 1;
            let subcommand = crate::command().find_subcommand(words[1]).is_some();
            assert!(subcommand, "{path}: {line}");
            if words.len() > 2 {
                let parsed = crate::command().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{path}: {line}: {}", parsed.expect_err("it does not parse"));
            }
        }
    }
    assert!(commands > 12, "{commands} commands only");
}
