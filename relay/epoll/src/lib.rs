//! Engine operations over epoll and sendfile
