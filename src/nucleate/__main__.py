from nucleate.cli import main

main()
