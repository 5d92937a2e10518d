from springback.cli import main

main()
