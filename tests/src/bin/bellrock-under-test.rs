//! `bellrock` as users start it, built by `cargo test --workspace` so that the tests can drive it.

fn main() -> std::process::ExitCode {
    bellrock::main()
}
