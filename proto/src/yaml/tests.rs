use proptest::prelude::*;

use super::*;

fn problems(text: &str, take: impl FnOnce(&mut Table)) -> Vec<Problem> {
    read("f.yaml", text, take).unwrap_err().list
}

#[test]
fn a_key_that_stands_twice_is_told_once_and_for_the_writer_of_the_file() {
    let list = problems("node: a\nnode: b\n", |_| ());
    let told: Vec<_> = list.iter().map(|it| (it.line, it.message.as_str())).collect();
    assert_eq!(told, [(2, "not valid YAML: duplicate mapping key: node")]);
}

#[test]
fn five_errors_are_all_told_with_line_and_field() {
    let text = "\
node: {a: 1}
gate:
  dead_man: soon
  jiter: 5s
disks:
  - mount_point: /var
    percent: 185
log_level: 12h
";
    let list = problems(text, |top| {
        top.string("node");
        if let Some(mut gate) = top.table("gate") {
            gate.duration("dead_man");
            gate.duration("jitter");
        }
        for item in top.list("disks").unwrap_or_default() {
            if let Some(mut disk) = item.table() {
                disk.string("mount_point");
                disk.integer("percent", 1..=100);
            }
        }
        if let Some(item) = top.item("log_level") {
            item.choice(&[("info", 1), ("debug", 2)]);
        }
    });
    let seen: Vec<_> = list
        .iter()
        .map(|problem| (problem.line, problem.field.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (1, "node"),
            (3, "gate.dead_man"),
            (4, "gate.jiter"),
            (7, "disks[0].percent"),
            (8, "log_level")
        ]
    );
    assert!(
        list[2].message.contains("did you mean \"jitter\""),
        "{}",
        list[2].message
    );
    assert!(
        list[3].message.contains("from 1 to 100, found 185"),
        "{}",
        list[3].message
    );
}

#[test]
fn a_syntax_error_has_its_line() {
    let list = problems("a: 1\nb: [1, 2\nc: 3\n", |_| {});
    assert_eq!(list.len(), 1);
    assert!(list[0].line >= 2, "{list:?}");
}

#[test]
fn an_empty_document_is_an_empty_table() {
    assert!(
        read("f", "# nothing\n", |top| top.string("node"))
            .unwrap()
            .is_none()
    );
}

#[test]
fn values_are_read() {
    let text = "d: 90s\ns: 16MiB\na: 10.0.0.1:7443\nb: true\nn: 3\n";
    let all = read("f", text, |top| {
        (
            top.duration("d"),
            top.size("s"),
            top.socket_address("a"),
            top.boolean("b"),
            top.integer("n", 0..=9),
        )
    });
    let expected = (
        Some(Duration::from_secs(90)),
        Some(16 << 20),
        Some("10.0.0.1:7443".parse().unwrap()),
        Some(true),
        Some(3),
    );
    assert_eq!(all.unwrap(), expected);
}

#[test]
fn a_name_where_an_address_belongs_says_why_not() {
    let list = problems("a: coordinator.local:7443\n", |top| {
        top.socket_address("a");
    });
    assert!(list[0].message.contains("DNS may be down"), "{}", list[0].message);
}

#[test]
fn off_and_no_are_texts() {
    let texts = read("f", "a: off\nb: no\n", |top| (top.string("a"), top.string("b")));
    assert_eq!(texts.unwrap(), (Some("off".to_owned()), Some("no".to_owned())));
}

#[test]
fn what_is_not_a_table_is_told() {
    assert_eq!(problems("- 1\n- 2\n", |_| {}).len(), 1);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*|[\\[\\]{}:&*\\-\n a-c0-9\"']{0,80}") {
        let _ = read("f", &text, |top| { top.string("a"); top.table("b"); });
    }
}

/// Whoever writes a file would have its reader hang, run out of memory or stack. A test's thread has 2 MiB, as those have that wait for disks.
#[test]
fn what_is_to_exhaust_its_reader_is_refused() {
    let bomb: String = (1..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, level| {
        let below = level - 1;
        text + &format!("a{level}: &a{level} [*a{below}, *a{below}, *a{below}, *a{below}]\n")
    });
    for text in [
        bomb + "a: *a39\n",
        format!("a: {}", "[".repeat(200_000)),
        format!("a: {}", "{a: ".repeat(200_000)),
        format!("a: &a [{}*a]", "*a, ".repeat(10_000)),
        (0..2_000).fold(String::new(), |text, level| text + &" ".repeat(level) + "a:\n"),
        "x".repeat(MAX_BYTES + 1),
    ] {
        let list = problems(&text, |_| ());
        assert!(list.iter().all(|problem| problem.message.len() < 4096));
    }
}
