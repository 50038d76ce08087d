"""One module for each format of tables; its name is the format's, its `Table` opens a file."""
