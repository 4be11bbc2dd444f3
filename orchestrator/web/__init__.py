"""What people look at outside the command line: contact sheets and result folders. Files only, no server."""
