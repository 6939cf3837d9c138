//! The `weighbridge` program: everything it can do is in the library's `cli`.

fn main() -> std::process::ExitCode {
    weighbridge::cli::main()
}
