//! The `weighbridge` program: everything it can do is in the library's `cli`.

/// What a crowd has needed goes back to the system when it has gone; the C library keeps it for good.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    weighbridge::cli::main()
}
