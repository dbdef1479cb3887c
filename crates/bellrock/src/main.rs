//! `bellrock`: see the library.

fn main() -> std::process::ExitCode {
    bellrock::main()
}
