//! Arrays that NumPy wrote, and damaged ones.

use std::io::Write as _;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/arrays");
    std::fs::read(folder.join(format!("{name}.npz"))).unwrap()
}

fn parse(name: &str) -> Result<Arrays, ArraysError> {
    Arrays::parse(&fixture(name))
}

#[test]
fn what_numpy_writes_is_read() {
    let classes = parse("classes").unwrap();
    let counted: Vec<f32> = (0..24).map(|v| v as f32 / 2.0).collect();
    assert_eq!((classes.len(), classes.shape(), classes.inputs()), (4, &[3, 2][..], &counted[..]));
    assert!(classes.groups().iter().eq(["a", "bb", "a", "ü"]));
    assert_eq!(classes.by_group()["a"], 2);
    assert_eq!((classes.loss(None), classes.classes()), (Loss::CrossEntropy, Some(3)));
    let targets = classes.targets(Loss::CrossEntropy, 5).unwrap();
    assert_eq!(targets, Targets::Classes { labels: vec![2, 0, 1, 2], count: 5 });

    let values = parse("values").unwrap();
    assert_eq!(values.inputs(), [1.0, 2.0, 3.0, 4.0, 250.0, 255.0]);
    assert!(values.groups().iter().eq(["7", "7", "8"]));
    assert_eq!((values.loss(None), values.outputs()), (Loss::Mse, Some(2)));
    let want = vec![0.5, -1.0, 1.5, 2.0, 3.0, 4.0];
    assert_eq!(
        values.targets(Loss::Mae, 0).unwrap(),
        Targets::Values { shape: vec![2], values: want }
    );

    let inputs = parse("inputs").unwrap();
    assert_eq!((inputs.inputs(), inputs.groups()), (&[0.5, -0.25][..], &Groups::one(GROUP, 1)));
    assert_eq!(inputs.loss(None), Loss::Reconstruction);
    assert_eq!(inputs.targets(Loss::Reconstruction, 0).unwrap(), Targets::Input);
}

#[test]
fn the_loss_says_whether_an_integer_is_a_class_or_a_number() {
    let classes = parse("classes").unwrap();
    let numbers = Targets::Values { shape: vec![], values: vec![2.0, 0.0, 1.0, 2.0] };
    assert_eq!(classes.targets(Loss::Mse, 0).unwrap(), numbers);
    let truths = parse("truths").unwrap();
    let binary = Targets::Values { shape: vec![], values: vec![1.0, 0.0] };
    assert_eq!(truths.targets(Loss::Binary, 0).unwrap(), binary);
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    for (name, words) in [
        ("no_x", &["no array x", "inputs", "y.npy"][..]),
        ("one_axis", &["array x", "[3]", "x[:, None]"]),
        ("no_samples", &["array x", "[0, 3]"]),
        ("lengths", &["array y", "[2]", "3 samples"]),
        ("nan", &["array x", "sample 1"]),
        ("too_large", &["array x", "sample 1", "32 bits"]),
        ("nan_target", &["array y", "sample 1"]),
        ("objects", &["array y", "Python objects"]),
        ("fields", &["array x", "fields"]),
        ("texts", &["array x", "texts"]),
        ("complex", &["array x", "<c8"]),
    ] {
        let text = parse(name).unwrap_err().to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{name}: {text}");
    }
    assert!(matches!(Arrays::parse(b"x,y\n1,2\n"), Err(ArraysError::Archive(_))));
}

#[test]
fn answers_that_do_not_suit_the_loss_are_refused_with_what_would() {
    let refused = |name: &str, loss, classes| {
        parse(name).unwrap().targets(loss, classes).unwrap_err().to_string()
    };
    let above = refused("classes", Loss::CrossEntropy, 2);
    assert!(above.contains("sample 0 has class 2") && above.contains("0 to 1"), "{above}");
    assert!(!above.contains("--loss"), "{above}");
    let one_output = refused("classes", Loss::CrossEntropy, 1);
    assert!(one_output.contains("give --loss mse"), "{one_output}");
    let floats = refused("values", Loss::CrossEntropy, 2);
    assert!(floats.contains("astype('int64')"), "{floats}");
    assert!(refused("inputs", Loss::Mse, 0).contains("no array y"));
}

/// Whether that place of an archive belongs to the name of an array.
fn is_named(bytes: &[u8], at: usize) -> bool {
    const NAME: &[u8] = b"x.npy";
    (at.saturating_sub(NAME.len() - 1)..=at).any(|from| {
        let found = bytes.get(from..from + NAME.len());
        found.is_some_and(|found| found[1..] == NAME[1..])
    })
}

#[test]
fn a_cut_or_changed_file_never_gives_other_inputs_unless_an_array_is_renamed() {
    for name in ["classes", "values"] {
        let (bytes, whole) = (fixture(name), parse(name).unwrap());
        for cut in 0..bytes.len() {
            assert!(Arrays::parse(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        for at in (0..bytes.len()).filter(|at| !is_named(&bytes, *at)) {
            for bit in [0x01, 0x80] {
                let mut changed = bytes.clone();
                changed[at] ^= bit;
                let Ok(read) = Arrays::parse(&changed) else { continue };
                assert_eq!(read.inputs(), whole.inputs(), "{name}, byte {at}");
            }
        }
    }
}

/// An archive with an array `x` of that header and these data bytes.
fn archive(dictionary: &str, data: &[u8]) -> Vec<u8> {
    archive_of(&[("x", dictionary, data)])
}

/// An archive with arrays of that name, header and data.
fn archive_of(arrays: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, dictionary, data) in arrays {
        writer.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        let length = (dictionary.len() as u16).to_le_bytes();
        for part in [b"\x93NUMPY\x01\x00", &length[..], dictionary.as_bytes(), data] {
            writer.write_all(part).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn integers_in_a_single_column_are_classes_too() {
    let header = |descr: &str, shape: &str| {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}")
    };
    let x = header("|u1", "(3, 1)");
    let read = |shape: &str, labels: &[u8]| {
        Arrays::parse(&archive_of(&[("x", &x, &[0; 3]), ("y", &header("|u1", shape), labels)]))
    };
    let column = read("(3, 1)", &[2, 0, 1]).unwrap();
    assert_eq!((column.loss(None), column.classes()), (Loss::CrossEntropy, Some(3)));
    assert_eq!(column.answers, read("(3,)", &[2, 0, 1]).unwrap().answers);
    assert_eq!(read("(3, 2)", &[0; 6]).unwrap().loss(None), Loss::Mse);
}

#[test]
fn a_header_that_claims_too_much_is_refused_before_anything_is_allocated() {
    let claim = |shape: &str| {
        let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}");
        Arrays::parse(&archive(&dictionary, &[0; 64])).unwrap_err().to_string()
    };
    for shape in ["(1073741825, 1)", "(99999999999, 99999999999)"] {
        assert!(claim(shape).contains("at most 1073741824 values"), "{}", claim(shape));
    }
    assert!(claim("(1073741824, 1)").contains("ends early"), "{}", claim("(1073741824, 1)"));
    assert!(claim("(1, 4)").contains("more data"), "{}", claim("(1, 4)"));
}

#[test]
fn what_is_held_out_follows_from_content() {
    let samples = 400;
    let data: Vec<u8> = (0..samples).flat_map(|n| ((n / 2) as f32).to_le_bytes()).collect();
    let dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (400, 1)}";
    let arrays = Arrays::parse(&archive(dictionary, &data)).unwrap();
    let (kept, out) = arrays.clone().held_out(0.2).unwrap();
    assert_eq!(kept.len() + out.len(), samples);
    assert!((40..120).contains(&out.len()), "{}", out.len());
    assert!(out.inputs().iter().all(|v| !kept.inputs().contains(v)), "equal samples stay together");
    for part in [&kept, &out] {
        let named = part.places().iter().map(|place| (place / 2) as f32);
        assert!(named.eq(part.inputs().iter().copied()), "places are those in the file");
    }
    let first: Vec<usize> = (0..100).collect();
    let (_, of_fewer) = arrays.part(&first).held_out(0.2).unwrap();
    assert_eq!(of_fewer.inputs(), &out.inputs()[..of_fewer.len()]);
    assert!(matches!(arrays.held_out(1e-9), Err(ArraysError::EmptyPart { .. })));
}
