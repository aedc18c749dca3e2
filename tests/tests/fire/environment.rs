//! Full disks, closed streams, missing folders, broken terminals: a clear end each.
