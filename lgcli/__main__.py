from lgcli.app import main

main()
