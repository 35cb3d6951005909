//! The tungate binary: hands over to the library.

fn main() -> std::process::ExitCode {
    tungate::cli::main()
}
