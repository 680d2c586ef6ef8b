//! ONNX Runtime, for models of any shape.

use std::path::PathBuf;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::session::Session;
use ort::value::Tensor;

/// One environment a process, kept for life.
fn environment() -> &'static Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let fetched = "../.fleetloop/onnxruntime/libonnxruntime.so.1.31.1";
        let library = std::env::var_os("FLEETLOOP_ORT_LIB").map_or(fetched.into(), PathBuf::from);
        let library = ort::init_from(library).expect("cargo xtask setup fetches ONNX Runtime");
        library.with_telemetry(false).build().unwrap()
    })
}

/// All outputs of a model with one float input, as floats.
pub fn outputs(file: &[u8], shape: &[usize], x: &[f32]) -> Vec<Vec<f32>> {
    let mut session = Session::builder(environment()).unwrap().commit_from_memory(file).unwrap();
    let input = Tensor::from_array((shape.to_vec(), x.to_vec())).unwrap();
    let names: Vec<String> = session.outputs().iter().map(|o| o.name().to_owned()).collect();
    let outputs = session.run(ort::inputs![input]).unwrap();
    let values = |name: &String| outputs[name.as_str()].try_extract_tensor::<f32>().unwrap().1;
    names.iter().map(|name| values(name).to_vec()).collect()
}
